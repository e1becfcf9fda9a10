"""The same weights give torchaudio's layer outputs (`padding: peer`)."""

import pytest
import torch
import torchaudio

from sslrepro.config import EncoderSettings, ModelSettings, WaveformFrontEnd
from sslrepro.errors import UserError
from sslrepro.interop.torchaudio_in import load_torchaudio_state
from sslrepro.models import Upstream


def settings(**encoder) -> ModelSettings:
    return ModelSettings(encoder=EncoderSettings(**encoder), padding="peer")


TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])


def batch(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([9_000, 6_123])
    waveforms = 0.1 * torch.randn(2, 9_000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return waveforms * (torch.arange(9_000) < lengths[:, None]), lengths


def compare(ours: Upstream, peer: torch.nn.Module, dtype: torch.dtype) -> None:
    tolerance = TOLERANCE[dtype]
    ours, peer = ours.to(dtype).eval(), peer.to(dtype).eval()
    waveforms, lengths = batch(dtype)
    with torch.no_grad():
        outputs, frames = peer.extract_features(waveforms, lengths)
        final, _ = peer(waveforms, lengths)
        result = ours(waveforms, lengths)
    assert frames.tolist() == result.lengths.tolist() == ours.frames(lengths).tolist()
    for state, wanted in zip(result.states[1:-1], outputs[:-1], strict=True):
        torch.testing.assert_close(state, wanted, **tolerance)
    torch.testing.assert_close(result.output, final, **tolerance)


@DTYPES
def test_wav2vec2_base(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    peer = torchaudio.models.wav2vec2_base(encoder_layer_drop=0.0)
    ours = Upstream(settings()).eval()
    loaded = load_torchaudio_state(ours, peer.state_dict())
    assert loaded.kept == ("mask_embedding",) and loaded.left_out == ()
    compare(ours, peer, dtype)


@DTYPES
def test_hubert_pretrain_base(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    peer = torchaudio.models.hubert_pretrain_base(encoder_layer_drop=0.0, num_classes=10)
    ours = Upstream(settings()).eval()
    loaded = load_torchaudio_state(ours, peer.state_dict())
    assert loaded.kept == ()
    assert {name.split(".")[0] for name in loaded.left_out} == {"logit_generator"}
    assert torch.equal(ours.mask_embedding, peer.mask_generator.mask_embedding)
    compare(ours, peer.wav2vec2, dtype)


@DTYPES
def test_large_form(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape = [(16, 10, 5), (16, 3, 4), (20, 3, 4), (20, 2, 4)]
    encoder = {"embed_dim": 24, "pos_conv_kernel": 16, "pos_conv_groups": 4, "num_layers": 2, "num_heads": 4, "ff_interm_features": 40}
    drops = {name: 0.0 for name in ("projection_dropout", "attention_dropout", "ff_interm_dropout", "dropout", "layer_drop")}
    peer = torchaudio.models.wav2vec2_model(
        extractor_mode="layer_norm",
        extractor_conv_layer_config=shape,
        extractor_conv_bias=True,
        encoder_layer_norm_first=True,
        aux_num_out=None,
        **{f"encoder_{name}": value for name, value in (encoder | drops).items()},
    ).eval()
    front_end = WaveformFrontEnd(
        channels=[c for c, _, _ in shape], kernels=[k for _, k, _ in shape], strides=[s for _, _, s in shape],
        padding=[0] * 4, norm="layer", bias=True,
    )  # fmt: skip
    values = settings(layers=2, width=24, ffn=40, heads=4, norm="pre", position={"kernel": 16, "groups": 4})
    ours = Upstream(values.model_copy(update={"front_end": front_end})).eval()
    load_torchaudio_state(ours, peer.state_dict())
    compare(ours, peer, dtype)


def test_other_shapes_are_refused() -> None:
    peer = torchaudio.models.wav2vec2_base()
    with pytest.raises(UserError, match="unexpected"):
        load_torchaudio_state(Upstream(settings(layers=2)), peer.state_dict())
