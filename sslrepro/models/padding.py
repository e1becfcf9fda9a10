"""Where a padded batch holds signal and where it holds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """True lengths of the rows of a batch. Built from host-side numbers, so that nothing waits for the device.

    `lengths`: one integer a row; `size`: the padded length; `valid`: `(batch, size)` bool on the device, or None when no
    row is padded.
    """

    lengths: tuple[int, ...]
    size: int
    device: torch.device
    valid: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], size: int, device: torch.device) -> Padding:
        lengths = tuple(min(n, size) for n in lengths)
        if all(n == size for n in lengths):
            return cls(lengths, size, device, None)
        ends = torch.tensor(lengths).to(device, non_blocking=True)
        return cls(lengths, size, device, torch.arange(size, device=device) < ends[:, None])

    def zero(self, x: Tensor, time: int = 1) -> Tensor:
        """`x` with zeros on padding; its time axis is 1, as `(batch, frames, dim)`, or 2, as `(batch, channels,
        frames)`.
        """
        if self.valid is None:
            return x
        valid = self.valid[:, :, None] if time == 1 else self.valid[:, None, :]
        return x.masked_fill(~valid, 0.0)

    def whole_groups(self, factor: int) -> Padding:
        """What is left of each row when frames past its last whole group of `factor` count as padding."""
        return Padding.of([n // factor * factor for n in self.lengths], self.size, self.device)

    def full(self) -> Padding:
        """The same batch with padding taken for signal, as the peers do."""
        return Padding.of([self.size] * len(self.lengths), self.size, self.device)
