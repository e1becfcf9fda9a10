"""Figures of where MACs go, and of the published size sweep with its fits. Each returns a matplotlib Figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from sslrepro.budget.count import Cost
from sslrepro.budget.names import named
from sslrepro.budget.published import size_sweep, sweep_cost, sweep_vertex
from sslrepro.budget.updates import PAPER_SECONDS
from sslrepro.report.style import use_style

# What is drawn, bottom first; the rest is too thin to see and goes together
PARTS = {
    "feature_extractor": "feature extractor",
    "position": "position",
    "feed_forward": "feed-forward",
    "convolution": "convolution module",
    "mixer": "mixer",
}
COLOURS = dict(zip([*PARTS.values(), "rest"], sns.color_palette("colorblind", len(PARTS) + 1), strict=True))
LABELS = {
    "asr_wer": "word error rate, %",
    "asv_eer": "equal error rate, %",
    "train_loss": "training loss",
    "valid_loss": "validation loss",
}
OBJECTIVES = {"hubert": "HuBERT", "wav2vec2": "wav2vec 2.0", "tera": "TERA"}


def _layers(costs: list[Cost]) -> dict[str, np.ndarray]:
    """MACs of each drawn part, (costs,)."""
    drawn = {label: np.array([_macs(cost, name) for cost in costs], float) for name, label in PARTS.items()}
    drawn["rest"] = np.array([cost.macs for cost in costs]) - sum(drawn.values())
    return {label: macs for label, macs in drawn.items() if macs.any()}


def _macs(cost: Cost, name: str) -> int:
    return cost.components[name].macs if name in cost.components else 0


def macs_by_length(names: list[str], longest: float) -> Figure:
    """MACs a second of audio over the length of the utterance, stacked by component, a panel a model."""
    use_style()
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), sharey=True, layout="constrained")
    seconds = np.geomspace(1.0, longest, 80)
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        layers = _layers([named(name).cost(s) for s in seconds])
        per_second = [macs / seconds / 1e9 for macs in layers.values()]
        ax.stackplot(seconds, per_second, labels=list(layers), colors=[COLOURS[label] for label in layers], linewidth=0)
        ax.grid(False)
        ax.axvline(PAPER_SECONDS, color="black", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", xlabel="seconds of audio", title=name, xlim=(1, longest))
        ticks = [t for t in (1, 3, 10, 30, 100, 300) if t <= longest]
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
    np.atleast_1d(axes)[0].set_ylabel("GMAC a second of audio")
    _legend(figure)
    return figure


def macs_by_size(objective: str = "hubert", seconds: float = PAPER_SECONDS) -> Figure:
    """Share of each component in the MACs of one utterance, over the published family from 30 % of Slim to Large."""
    sizes = size_sweep().query(f"objective == '{objective}' and budget == 'full'").size_pct.tolist()
    costs = [sweep_cost(objective, size) for size in sizes]
    params = np.array([cost.params for cost in costs]) / 1e6
    total = np.array([cost.macs for cost in costs])
    layers = _layers(costs)
    use_style()
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    shares = [100 * macs / total for macs in layers.values()]
    ax.stackplot(params, shares, labels=list(layers), colors=[COLOURS[label] for label in layers], linewidth=0)
    ax.grid(False)
    slim = sizes.index(100)
    ax.plot([params[slim]] * 2, [0, shares[0][slim]], color="white", linewidth=1.5)
    text = f"{shares[0][slim]:.0f} % of Slim"
    ax.annotate(text, (params[slim], shares[0][slim] / 2), (-6, 0), textcoords="offset points", color="white", ha="right")
    ax.set(xscale="log", xlabel="million parameters", ylabel=f"% of the MACs of {seconds:g} s", ylim=(0, 100))
    ax.set_xlim(params[0], params[-1])
    ax.set_xticks(params, [f"{p:.0f}" for p in params])
    ax.minorticks_off()
    _legend(figure)
    return figure


def published_curves(metric: str = "asr_wer") -> Figure:
    """The published size sweep, a panel an objective, with the quadratic in log size of each budget and the interval of its vertex."""
    use_style()
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
    for ax, (objective, title) in zip(axes, OBJECTIVES.items(), strict=True):
        for budget, colour in (("full", "C0"), ("half", "C1")):
            part = size_sweep().query(f"objective == '{objective}' and budget == '{budget}'")
            if part.empty:
                continue
            vertex = sweep_vertex(objective, budget, metric)
            x = np.log(part.params.to_numpy())
            grid = np.linspace(x.min(), x.max(), 100)
            ax.plot(np.exp(grid) / 1e6, np.polyval(np.polyfit(x, part[metric], 2), grid), color=colour, linewidth=1.2)
            label = f"{budget} budget: {vertex.size / 1e6:.0f} M [{vertex.low / 1e6:.0f}, {vertex.high / 1e6:.0f}]"
            ax.plot(part.params / 1e6, part[metric], "o", color=colour, label=label)
            ax.axvspan(vertex.low / 1e6, vertex.high / 1e6, color=colour, alpha=0.2, linewidth=0)
        ax.set(xscale="log", xlabel="million parameters", title=title)
        ax.set_xticks([5, 10, 20, 50, 100, 300], ["5", "10", "20", "50", "100", "300"])
        ax.minorticks_off()
        ax.legend(fontsize=8, loc="upper center")
    axes[0].set_ylabel(LABELS[metric])
    return figure


def _legend(figure: Figure) -> None:
    found = {}
    for ax in figure.axes:
        found |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    order = [label for label in COLOURS if label in found][::-1]  # top of the stack first
    figure.legend([found[label] for label in order], order, loc="outside right center", frameon=False)
