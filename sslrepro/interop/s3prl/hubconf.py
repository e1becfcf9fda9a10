"""The entry that S3PRL and `torch.hub.load(folder, "sslrepro_local", ckpt=RUN, source="local")` look for."""

from sslrepro.interop.s3prl.expert import UpstreamExpert as _UpstreamExpert

dependencies = ["torch", "sslrepro"]


def sslrepro_local(ckpt: str, model_config: str | None = None, refresh: bool = False) -> _UpstreamExpert:
    """The upstream of a run folder (`-u sslrepro_local -k RUN`)."""
    return _UpstreamExpert(ckpt, model_config, refresh)
