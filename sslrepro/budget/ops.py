"""The operations that are counted, each from its sizes alone.

A MAC is one multiplication and one addition; FLOPs are 2 a MAC. The exact backward of a layer is the gradient of its weights (as many
MACs as its forward) and that of its input (as many again, where something below needs it).
Element-wise work (activations, norms, softmax, dropout, sums) is left out, as torch.utils.flop_counter leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Part:
    """What a component holds and does: parameters, MACs of one forward, and MACs that training adds to it.

    training: the exact backward; a teacher's forward.
    unseen: forward MACs among `macs` that torch's counter has no rule for (FFTs, scans); unseen_training: those among `training`.
    grouped_excess: MACs that nobody computes and that torch 2.11's counter adds to the backward of grouped convolutions: it counts their
    weight gradient as if `groups` were 1 (corrected upstream in pytorch/pytorch#183405).
    """

    params: int = 0
    macs: int = 0
    training: int = 0
    unseen: int = 0
    grouped_excess: int = 0
    unseen_training: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.params + other.params,
            self.macs + other.macs,
            self.training + other.training,
            self.unseen + other.unseen,
            self.grouped_excess + other.grouped_excess,
            self.unseen_training + other.unseen_training,
        )

    def __mul__(self, times: int) -> Part:
        """This part, `times` times over, each with weights of its own."""
        values = (self.params, self.macs, self.training, self.unseen, self.grouped_excess, self.unseen_training)
        return Part(*(times * value for value in values))

    __rmul__ = __mul__

    def forward_only(self) -> Part:
        """The same without a gradient: a teacher, or what stands before a stopped gradient."""
        return Part(self.params, self.macs, 0, self.unseen, 0)


def parameters(count: int) -> Part:
    """Weights that take part in element-wise work alone: norms, biases, embeddings."""
    return Part(params=count)


def linear(rows: int, inputs: int, outputs: int, *, bias: bool = True, blocks: int = 1, input_grad: bool = True) -> Part:
    """y = x W + b over `rows` rows. `blocks`: W is block-diagonal with so many blocks."""
    weights = inputs * outputs // blocks
    macs = rows * weights
    return Part(weights + (outputs if bias else 0), macs, macs * (1 + input_grad))


def conv1d(frames: int, inputs: int, outputs: int, kernel: int, *, groups: int = 1, bias: bool = True, input_grad: bool = True) -> Part:
    """A convolution that gives `frames` frames; padding is counted as data, as torch's counter does."""
    weights = inputs * outputs * kernel // groups
    macs = frames * weights
    return Part(weights + (outputs if bias else 0), macs, macs * (1 + input_grad), 0, macs * (groups - 1))


def product(*sizes: int) -> Part:
    """A product of two activations, such as attention's: MACs are the product of the sizes, and both sides need a gradient."""
    macs = prod(sizes)
    return Part(0, macs, 2 * macs)


def prime_factors(n: int) -> list[int]:
    """With multiplicity, ascending: 400 -> [2, 2, 2, 2, 5, 5]."""
    factors, p = [], 2
    while p * p <= n:
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return factors + [n] * (n > 1)


def fft_macs(n: int) -> int:
    """MACs of one complex discrete Fourier transform of length n by mixed-radix Cooley-Tukey: n x (sum of n's prime factors) complex
    multiply-accumulates, 4 real ones each. Any fast transform of a composite length does fewer; it is a bound that grows as n log n."""
    return 4 * n * sum(prime_factors(n))


def rfft_macs(n: int) -> int:
    """Of a real signal: half, because two real signals go through one complex transform (their untangling is element-wise)."""
    return fft_macs(n) // 2


def fast_length(frames: int) -> int:
    """The least length of a transform without wrap-around, 2 · frames - 1 or more, whose only prime factors are 2, 3 and 5."""
    n = max(1, 2 * frames - 1)
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def transforms(macs: int, input_grad: bool = True) -> Part:
    """Fourier transforms of so many MACs together. The gradient of one is one of the same length."""
    training = macs * input_grad
    return Part(0, macs, training, macs, 0, training)


def scan_macs(steps: int, width: int) -> int:
    """MACs of the linear recurrence h[t] = a[t] h[t-1] + b[t] over `steps` steps of `width` states, done in order: one each."""
    return steps * width
