"""A finished run as S3PRL calls an upstream: a list of waveforms in, padded hidden states out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslrepro.errors import UserError
from sslrepro.training.runs import load_upstream


class UpstreamExpert(nn.Module):
    """`ckpt`: a run folder, `runs/<profile>/<study>/<cell>/<seed>`. S3PRL passes the other two; a run needs neither.

    Raises UserError for a folder that is no finished run, and for a `model_config`.
    """

    def __init__(self, ckpt: str, model_config: str | None = None, refresh: bool = False) -> None:
        super().__init__()
        if model_config is not None:
            raise UserError(f"model_config {model_config}: not used, a run folder holds its own settings; leave -g away")
        self.upstream = load_upstream(Path(ckpt))
        self.hop = self.upstream.front_end.hop

    def get_downsample_rates(self, key: str) -> int:
        """Samples a frame, the same for every hidden state."""
        return self.hop

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor] | Tensor]:
        """Waveforms `(samples,)` at 16 kHz to `hidden_states`, each `(batch, frames, dim)`: the encoder's input, then every layer.

        S3PRL takes round(samples / rate) frames of each row, up to two more than there are: a row goes on with its last frame, so that what
        an utterance gives does not depend on what it is batched with.
        """
        lengths = [len(wav) for wav in wavs]
        output = self.upstream(pad_sequence(wavs, batch_first=True), lengths)
        size = max(output.output.shape[1], *(round(n / self.hop) for n in lengths))
        places = torch.minimum(torch.arange(size), output.lengths[:, None] - 1).to(output.output.device)
        states = [state.gather(1, places[:, :, None].expand(-1, -1, state.shape[-1])) for state in output.hidden_states]
        return {"hidden_states": states, "last_hidden_state": states[-1]}
