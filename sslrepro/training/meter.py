"""How much of the budget is used, whether the run is healthy, and what people see of it."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sslrepro.config import CellSettings
from sslrepro.training.ranks import rank

if TYPE_CHECKING:
    from sslrepro.objectives.base import Objective
    from sslrepro.training.loop import State

MOST_SPIKES = 50  # kept of a run: the last


class Budget:
    """What an update costs in the budget's unit. Hours are real audio, without padding; FLOPs are those of each utterance alone."""

    def __init__(self, settings: CellSettings, durations: np.ndarray) -> None:
        budget = settings.training.budget
        self.unit, self.amount = budget.unit, budget.amount
        if self.unit == "updates":
            self._each = np.zeros(len(durations))
            a_second = 1 / settings.training.batch_seconds
        elif self.unit == "hours":
            self._each = durations / 3600
            a_second = 1 / 3600
        else:
            from sslrepro.budget.count import cell_cost

            grid = np.linspace(durations.min(), durations.max() + 1e-3, 64)
            counted = [cell_cost(settings, float(seconds)) for seconds in grid]
            costs = [cost.train_flops if self.unit == "flops" else cost.train_flops_past_front_end for cost in counted]
            self._each = np.interp(durations, grid, costs)
            a_second = float(self._each.sum() / durations.sum())
        # as estimated for schedules in updates and for the time left; the run itself ends by what was used
        self.updates = max(1.0, self.amount / (a_second * settings.training.batch_seconds))
        self.updates_bound = math.ceil(self.updates * 2) + 64

    def cost(self, positions: np.ndarray) -> float:
        """What the update with these utterances uses."""
        return 1.0 if self.unit == "updates" else float(self._each[positions].sum())


class Health:
    """Ends a run that no longer learns, by rule and with the evidence.

    non_finite: the loss or a gradient of an update is NaN or infinite (in 16 bits: also when made again in float32); the weights stay
    those before it. diverged: the mean loss of 20 updates is above both twice the best such mean and chance + 1 (without a chance level,
    above the former alone); the run ends where its metrics are next logged. collapsed: the objective's own rule (code use, variance),
    after a tenth of the run. A loss above both twice the median of the 20 before it and chance + 1 is a spike: it is kept with its update
    and utterances, and let pass, as most do; of a divergence the evidence has those that led to it.
    """

    def __init__(self, objective: Objective, names: Callable[[np.ndarray], list[str]]) -> None:
        """names: of the utterances at these places of the plan."""
        self.objective, self.names = objective, names

    def after_update(self, loss: float, update: int, members: np.ndarray, state: State) -> None:
        before, chance = state.losses[-20:], self.objective.chance().get("loss", -math.inf)
        if len(before) >= 5 and loss > max(2 * statistics.median(before), chance + 1):
            state.spikes = [*state.spikes, {"update": update, "loss": loss, "utterances": self.names(members)}][-MOST_SPIKES:]
        state.losses = [*state.losses, loss][-200:]
        window = state.losses[-20:]
        if len(window) < 20 or state.suspicion:
            return
        mean = sum(window) / 20
        state.best_loss = min(state.best_loss, mean)
        if mean > 2 * state.best_loss and mean > chance + 1:
            state.suspicion = {
                "update": update,
                "mean_of_last_20": mean,
                "best_mean_of_20": state.best_loss,
                "losses": window,
                "utterances": self.names(members),
                "spikes": [spike for spike in state.spikes if spike["update"] > update - 20],
            }

    def non_finite(self, loss: float, members: np.ndarray, state: State) -> tuple[str, dict[str, Any]]:
        evidence = {"update": state.update, "loss": str(loss), "utterances": self.names(members), "losses_before": state.losses[-20:]}
        return "non_finite", evidence

    def after_log(self, metrics: dict[str, float], share: float, state: State) -> tuple[str, dict[str, Any]] | None:
        if state.suspicion:
            return "diverged", state.suspicion
        reason = self.objective.collapse(metrics) if share > 0.1 else None
        return ("collapsed", {"reason": reason, "share_of_run": share, "metrics": metrics}) if reason else None


class Progress:
    """One line on stderr now and then: cell i of n, updates, hours of audio seen, loss beside chance, time left."""

    def __init__(self, label: str, chance: float | None = None, every: float = 10.0) -> None:
        self.label, self.chance, self.every = label, chance, every
        self._last = 0.0
        self._first: tuple[float, int] | None = None

    def update(self, update: int, updates: float, hours: float, loss: float, seconds: float) -> None:
        if self._first is None:
            self._first = (seconds, update)
        now = time.monotonic()
        if now - self._last < self.every and update < updates:
            return
        self._last = now
        took, done = seconds - self._first[0], update - self._first[1]
        left = f"{took / done * max(updates - update, 0):.0f} s left" if done else "…"
        beside = f" (chance {self.chance:.2f})" if self.chance is not None else ""
        self.say(f"{update}/{updates:.0f} updates · {hours:.2f} h seen · loss {loss:.3f}{beside} · {left}")

    def say(self, text: str) -> None:
        if rank() == 0:
            print(f"{self.label} · {text}", file=sys.stderr, flush=True)
