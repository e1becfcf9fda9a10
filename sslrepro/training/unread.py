"""Updates that are under way on the device: their losses, and whether they were finite, are read later and together, so that no update
waits for the device.

Until then the device keeps the rule by itself: from the first update on that is not finite none reaches the weights, the optimizer or a
teacher. Whoever reads goes back to that update, and nothing has happened since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sslrepro.objectives.base import Objective
    from sslrepro.training.loop import State
    from sslrepro.training.meter import Health

MOST = 32  # updates, at most, between two readings


class Place(NamedTuple):
    """Where a run stands between two updates."""

    update: int
    used: float
    hours_seen: float
    padded_hours: float

    @classmethod
    def of(cls, state: State) -> Place:
        return cls(*(getattr(state, name) for name in cls._fields))

    def restore(self, state: State) -> None:
        for name, value in self._asdict().items():
            setattr(state, name, value)


class Guard:
    """Drops updates on the device from the first on whose loss or gradient is not finite, until `open` is called."""

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.objective, self.optimizer, self.device = objective, optimizer, device
        self.open()

    def open(self) -> None:
        self._dropped = torch.zeros((), device=self.device)

    def check(self, loss: Tensor) -> Tensor:
        """1 if everything was finite so far, else 0 (a number on the device); the optimizer's next step does nothing at 0."""
        norms = torch._foreach_norm([parameter.grad for parameter in self.objective.parameters() if parameter.grad is not None])
        bad = ~torch.stack([loss, *norms]).isfinite().all()
        self._dropped = torch.maximum(self._dropped, bad.float())
        self.optimizer.found_inf = self._dropped  # what torch's fused optimizers take from gradient scalers
        return 1 - self._dropped


class Made(NamedTuple):
    """One update: where the run stood before and after it, its loss and `Guard.check` of it (both on the device), its own metrics' sums,
    and the utterances' places in the plan."""

    before: Place
    after: Place
    loss: Tensor
    sound: Tensor
    sums: dict[str, Tensor]
    members: np.ndarray


class Unread:
    """The updates since the last reading."""

    def __init__(self) -> None:
        self.updates: list[Made] = []

    def add(self, made: Made) -> None:
        self.updates.append(made)

    def __len__(self) -> int:
        return len(self.updates)

    def read(self, state: State, sums: dict[str, Tensor], health: Health) -> tuple[float, Made | None]:
        """One wait for the device: losses go to the rules of `health`, metrics into `sums`, up to the first update that is not sound.

        Returns the loss of the last one read, and the unsound one, if there is one, where the state then stands.
        """
        updates, self.updates = self.updates, []
        losses, sounds = torch.stack([torch.stack([made.loss, made.sound]) for made in updates]).T.tolist()
        for made, loss, sound in zip(updates, losses, sounds, strict=True):
            if not sound:
                made.after.restore(state)
                return loss, made
            add_sums(sums, made.sums)
            health.after_update(loss, made.after.update, made.members, state)
        return losses[-1], None


def add_sums(sums: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    for name, value in own.items():
        sums[name] = sums[name] + value if name in sums else value
