"""Exact cost of a model from its settings alone: parameters, `macs`, `train_flops`, by component, for an utterance of any length.

- `macs`: multiply-accumulates of one forward of the utterance, pre-training heads included.
- `train_flops`: the same utterance forward and exact backward, 2 FLOPs a MAC, a teacher's forward included. Where training samples its
  compression, the mean over what it draws from (of a range of rates, over evenly spread ones); `macs` are of what the model runs at.
- `setup_flops`: what was spent before, on labels and earlier iterations (sslrepro.budget.setup).

Element-wise work is left out. What depends on the mask uses the expected number of masked frames. LayerDrop is not subtracted.
Equal to torch.utils.flop_counter on the built model on the meta device with the math attention path, op by op (tests/budget).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sslrepro.budget.clones import cloned_encoder
from sslrepro.budget.encoder import encoder
from sslrepro.budget.front_end import SAMPLE_RATE, front_end, has_weights, hop
from sslrepro.budget.heads import heads, masked_frames
from sslrepro.budget.ops import Part, linear, parameters
from sslrepro.budget.own_targets import own_targets
from sslrepro.budget.subnets import subnets
from sslrepro.config import CellSettings, ClonedRegressionSettings, ContrastiveSettings, ModelSettings, NoObjective, ObjectiveSettings

PRETRAINING = ("quantizer", "heads", "negatives", "targets", "teacher")  # what a user of the model never runs


@dataclass(frozen=True)
class Cost:
    """What one utterance costs. components: by name, in the order of the forward; they add up to the totals.

    sampled: the components at each choice that training draws from, where it draws.
    """

    samples: int
    frames: int
    masked: int
    components: dict[str, Part] = field(default_factory=dict)
    trained: bool = True
    sampled: tuple[dict[str, Part], ...] = ()
    setup_flops: int = 0

    @property
    def total(self) -> Part:
        return sum(self.components.values(), Part())

    @property
    def params(self) -> int:
        return self.total.params

    @property
    def upstream_params(self) -> int:
        """Without pre-training heads."""
        return sum(part.params for name, part in self.components.items() if name not in PRETRAINING)

    @property
    def macs(self) -> int:
        return self.total.macs

    @property
    def train_flops(self) -> int:
        """0 where nothing is learned."""
        return sum(self._train_flops(name) for name in self.components)

    @property
    def train_flops_past_front_end(self) -> int:
        """All but the feature extractor's: what an update would cost if that were free."""
        return self.train_flops - self._train_flops("feature_extractor")

    def _train_flops(self, name: str) -> int:
        parts = [components[name] for components in self.sampled] or [self.components[name]]
        return round(2 * sum(part.macs + part.training for part in parts) / len(parts)) if self.trained else 0

    def as_dict(self) -> dict:
        """Plain numbers: params, macs, train_flops, setup_flops, and the first three for each component."""
        return {
            "seconds": self.samples / SAMPLE_RATE,
            "frames": self.frames,
            "masked_frames": self.masked,
            "params": self.params,
            "upstream_params": self.upstream_params,
            "macs": self.macs,
            "train_flops": self.train_flops,
            "setup_flops": self.setup_flops,
            "components": {
                name: {
                    "params": part.params,
                    "macs": part.macs,
                    "train_flops": self._train_flops(name),
                }
                for name, part in self.components.items()
            },
        }


def count(model: ModelSettings, objective: ObjectiveSettings, samples: int, masked: int | None = None) -> Cost:
    """The cost of one utterance of `samples` samples at 16 kHz. masked: masked frames, where the actual number is known."""
    frames, channels, extractor = front_end(model.front_end, samples)
    trained = has_weights(model.front_end) and model.feature_grad_mult > 0
    components = {"feature_extractor": extractor if trained else extractor.forward_only()}
    width, drawn = channels, []
    if model.encoder is not None:
        width = model.encoder.width
        components["projection"] = _projection(model, frames, channels, trained)
        components |= encoder(model.encoder, frames)
        if model.encoder.compression.kind == "stochastic" and model.encoder.compression.sampled:
            drawn = [encoder(model.encoder.at(factors), frames) for factors in model.encoder.compression.trained]
        drawn += [encoder(model.encoder.at_rate(rate), frames) for rate in model.encoder.compression.spread_rates]
    masked = masked_frames(objective, frames) if masked is None else masked
    if isinstance(objective, ClonedRegressionSettings):
        components |= cloned_encoder(model.encoder, objective, frames, masked)
    components |= heads(objective, masked, width, channels, _quantizer_needs_grad(model, objective, trained), hop(model.front_end), frames)
    components |= own_targets(model, objective, samples, frames, channels, masked, hop(model.front_end))
    teacher = getattr(objective, "teacher_model", None)
    if teacher is not None:
        components["teacher"] = Part(training=count(teacher, NoObjective(), samples).macs)  # its forward alone
    if getattr(objective, "supernet", None) is not None:  # each update trains one of these
        alone = objective.model_copy(update={"supernet": None})
        drawn = [count(smaller, alone, samples, masked).components for smaller in subnets(model, objective.supernet)]
    sampled = tuple(components | parts for parts in drawn)
    return Cost(samples, frames, masked, components, trained=not isinstance(objective, NoObjective), sampled=sampled)


def _projection(model: ModelSettings, frames: int, channels: int, trained: bool) -> Part:
    """Layer norm, linear to the encoder's width where that differs (fairseq's rule), mask embedding."""
    width = model.encoder.width
    part = parameters(2 * channels if model.feature_norm else 0)
    if channels != width:
        part += linear(frames, channels, width, input_grad=trained or model.feature_norm)
    return part + parameters(width if model.mask_embedding == "learned" else 0)


def _quantizer_needs_grad(model: ModelSettings, objective: ObjectiveSettings, trained: bool) -> bool:
    normed = isinstance(objective, ContrastiveSettings) and objective.quantizer.input == "after_norm"
    return trained or (normed and model.feature_norm)


def cell_cost(settings: CellSettings, seconds: float) -> Cost:
    """The cost of one utterance of `seconds` under a cell's settings. No model is built: a fraction of a millisecond."""
    return count(settings.model, settings.objective, round(seconds * SAMPLE_RATE))
