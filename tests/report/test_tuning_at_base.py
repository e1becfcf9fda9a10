"""What the fine-tuning figure shows of each method, counted at Base as the profile `paper` tunes it: weights that learn, and bytes.

Expected by hand, to the byte, for one utterance without padding and torch's own operations (the meta device holds no weights).
"""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sslrepro.budget.activations import LAYERS, predicted_activations
from sslrepro.budget.memory import Memory, measure
from sslrepro.budget.mixer_activations import PLAIN
from sslrepro.config import NoObjective
from sslrepro.downstream.fine_tune import CTCModel
from sslrepro.downstream.parameter_efficient import learned, prepare
from sslrepro.models.upstream import Upstream
from sslrepro.pipeline.profile import expand

SAMPLES, SYMBOLS = 32_000, 28
L, W, F, H, T = 12, 768, 3072, 12, 99  # layers, width, feed-forward, heads, frames
HEAD = W * (1 + SYMBOLS) + 1 + SYMBOLS
WIDE, SQUARES = T * W, 3 * H * T * T  # a state; attention's weights, its dropout mask of four bytes, and what is left
READ = T * (1 + SYMBOLS)  # the head's log-probabilities; its input is a state
LORA, ADALORA, BOTTLENECK = 8, 12, 64  # ranks, and the adapter's width
w, f = W // 8, F // 8  # the ladder's
SIDE = 4 * (w * w + w) + (w * f + f) + (f * w + w) + 2 * 2 * w


@pytest.fixture(scope="module")
def cells():
    return expand("paper").studies["survey"].cells


@pytest.fixture(scope="module")
def memory(cells) -> dict[str, tuple[int, Memory]]:
    """Weights that learn, and what the first step keeps, of each method."""
    found = {}
    for method in ("full", "frozen", "lora", "adalora", "adapter", "ladder"):
        settings = cells[f"tune-{method}"]
        with torch.device("meta"):
            model = CTCModel(Upstream(settings.model), [str(i) for i in range(SYMBOLS)])
            prepare(model, settings.downstream.fine_tune.method, 80_000)
            waveform = torch.zeros(1, SAMPLES)
        model.train()
        for part in (model.upstream.front_end, model.upstream.feature_norm):
            part.eval()
        with sdpa_kernel(SDPBackend.MATH):
            kept = measure(model, lambda: model(waveform, torch.tensor([SAMPLES]))[0].sum())  # noqa: B023
        found[method] = sum(p.numel() for p in learned(model).values()), kept
    return found


def test_weights_that_learn(memory):
    """Low-rank updates r x (768 + 768) of queries and values of 12 layers: a third of a per cent of what full fine-tuning learns."""
    counted = {method: trained - HEAD for method, (trained, _) in memory.items() if method != "full"}
    assert counted == {
        "frozen": 0,
        "lora": L * 2 * LORA * 2 * W,
        "adalora": L * 2 * ADALORA * (2 * W + 1),
        "adapter": L * 2 * (2 * BOTTLENECK * W + BOTTLENECK + W),
        "ladder": (L + 1) * (W * w + w) + L * SIDE + L + (w * W + W),
    }
    full = memory["full"][0]
    assert 94e6 - full == pytest.approx(4.2e6, rel=0.1)  # HuBERT Base without its front end, which stays as it is
    shares = {method: trained / full for method, (trained, _) in memory.items()}
    assert shares["lora"] == pytest.approx(0.0035, rel=0.01) and shares["lora"] <= 0.02
    assert shares["adapter"] == pytest.approx(0.0266, rel=0.01) and shares["ladder"] == pytest.approx(0.0266, rel=0.01)


def test_gradients_and_optimizer_state_are_of_what_learns(memory):
    for trained, kept in memory.values():
        assert (kept.gradients, kept.optimizer) == (4 * trained, 8 * trained)


def test_activations_to_the_byte(memory, cells):
    """Of frozen linears no input is kept; norms, activations and products of attention keep theirs where a weight before them learns."""
    kept = {method: m.activations for method, (_, m) in memory.items()}
    model = cells["tune-full"].model
    head = WIDE + READ
    assert kept["frozen"] == 4 * head
    parts = predicted_activations(model, NoObjective(), SAMPLES, PLAIN)
    whole = sum(size for name, size in parts.items() if name != "feature_extractor")
    assert kept["full"] == whole + 4 * head - 8 * T - T  # the norm of the features has no statistics to keep, and nothing is masked

    norms = 2 * (WIDE + 2 * T)
    rest = 2 * WIDE + norms + T * F  # two dropout masks, the norms' inputs, the activation's
    lora = WIDE + 3 * WIDE + 2 * T * LORA + SQUARES + rest  # the input, queries, keys, values; what the first factor gives
    first = WIDE  # keys of the first layer do not learn: no queries are kept for them
    assert kept["lora"] == 4 * (L * lora - first + head)
    more = L * 2 * (T * (ADALORA - LORA) + 1) + (L - 1) * 2 * ADALORA * W  # products of E and A, where the input has a gradient
    assert kept["adalora"] == 4 * (L * lora - first + head + more)
    adapter = 3 * WIDE + SQUARES + rest + 2 * (WIDE + 2 * T * BOTTLENECK)
    first = 3 * WIDE + SQUARES  # nothing learns before the first attention
    assert kept["adapter"] == 4 * (L * adapter - first + head)

    small = model.encoder.model_copy(update={"width": w, "ffn": f})
    side = LAYERS["transformer"](small, T, PLAIN) + 4 * (2 * T * w + 2)  # with what the gate mixes, and its two shares
    assert kept["ladder"] == L * side + 4 * ((L + 1) * WIDE + T * w + head)


def test_savings_depend_on_the_batch(memory):
    """The optimizer's state, which is no larger for more speech, is most of full fine-tuning of 2 s; of 100 s the activations are. The
    ladder saves more than LoRA, but less than twice as much, in either."""
    for times, lora, ladder in ((1, 0.945, 0.950), (50, 0.51, 0.75)):
        totals = {method: times * m.activations + m.gradients + m.optimizer for method, (_, m) in memory.items()}
        saved = {method: 1 - total / totals["full"] for method, total in totals.items()}
        assert (saved["lora"], saved["ladder"]) == pytest.approx((lora, ladder), abs=0.005)
