"""The same weights and inputs give transformers' hidden states, outputs and gradients, padding included (`padding: peer`)."""

from typing import NamedTuple

import pytest
import torch
import transformers as hf
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

from sslrepro.config import QuantizerSettings
from sslrepro.errors import UserError
from sslrepro.interop.names import peer_names
from sslrepro.interop.transformers_in import load_transformers_state, rules, settings_from_transformers
from sslrepro.models import Quantizer, Upstream, gumbel_noise

COMMON = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "conv_dim": [16, 16, 20, 20, 20, 20, 20],
    "num_conv_pos_embedding_groups": 4,
}
REAL = {"num_hidden_layers": 1, "conv_bias": False}  # every width as published, one layer
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SEW_TINY = TINY | {
    "conv_dim": [8, 12, 12, 16, 16, 16],
    "conv_kernel": [10, 3, 1, 3, 1, 3],
    "conv_stride": [5, 4, 1, 4, 1, 4],
    "num_conv_pos_embeddings": 31,
}
WIDE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}

CASES = {
    "wav2vec2-tiny": (hf.Wav2Vec2Config, hf.Wav2Vec2Model, TINY | {"num_conv_pos_embeddings": 16}),
    "wav2vec2-base": (hf.Wav2Vec2Config, hf.Wav2Vec2Model, REAL),
    "wav2vec2-large-tiny": (hf.Wav2Vec2Config, hf.Wav2Vec2Model, TINY | LARGE | {"num_conv_pos_embeddings": 15}),
    "wav2vec2-large": (hf.Wav2Vec2Config, hf.Wav2Vec2Model, REAL | LARGE | WIDE),
    "hubert-tiny": (hf.HubertConfig, hf.HubertModel, TINY | {"num_conv_pos_embeddings": 16}),
    "hubert-no-norm": (hf.HubertConfig, hf.HubertModel, TINY | LARGE | {"feat_proj_layer_norm": False}),
    "sew-tiny-squeeze2": (hf.SEWConfig, hf.SEWModel, SEW_TINY),
    "sew-tiny-squeeze3": (hf.SEWConfig, hf.SEWModel, SEW_TINY | {"squeeze_factor": 3, "num_conv_pos_embeddings": 16}),
    "sew-mid": (hf.SEWConfig, hf.SEWModel, REAL),
    "data2vec-tiny": (hf.Data2VecAudioConfig, hf.Data2VecAudioModel, TINY | {"conv_pos_kernel_size": 7}),
    "data2vec-base": (hf.Data2VecAudioConfig, hf.Data2VecAudioModel, REAL),
}


class Pair(NamedTuple):
    ours: Upstream
    peer: torch.nn.Module
    names: dict[str, str]  # ours by theirs


def build(case: str, dtype: torch.dtype) -> Pair:
    config_class, model_class, values = CASES[case]
    torch.manual_seed(1)
    config = config_class(**COMMON, **values)
    config.apply_spec_augment = True  # so that a given mask is used
    peer = model_class(config).to(dtype).eval()
    with torch.no_grad():  # nothing at a value that hides a mistake, such as zero biases and unit norms
        for parameter in peer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    settings = settings_from_transformers(config.to_dict()).model_copy(update={"padding": "peer", "feature_grad_mult": 1.0})
    ours = Upstream(settings).to(dtype).eval()
    loaded = load_transformers_state(ours, peer.state_dict(), config.model_type)
    assert loaded == ((), ())
    return Pair(ours, peer, peer_names(dict(ours.named_parameters()), rules(config.model_type)))


def inputs(pair: Pair, dtype: torch.dtype, samples: int):
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([samples, samples - 2999, samples - 5001])
    waveforms = 0.1 * torch.randn(3, samples, generator=generator, dtype=dtype)
    attention = torch.arange(samples) < lengths[:, None]
    waveforms = waveforms * attention
    frames = pair.ours.frames(samples)
    mask = torch.rand(3, frames, generator=generator) < 0.3
    return waveforms, lengths, attention.long(), mask


RUNS = [(case, torch.float32) for case in CASES]
RUNS += [(case, torch.float64) for case in CASES if "conv_dim" in CASES[case][2]]  # the narrow ones: time


@pytest.mark.parametrize(("case", "dtype"), RUNS, ids=[f"{case}-{str(dtype)[6:]}" for case, dtype in RUNS])
def test_hidden_states_and_gradients(case: str, dtype: torch.dtype, key_sums) -> None:
    tolerance = {"rtol": 1e-9, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    pair = build(case, dtype)
    waveforms, lengths, attention, mask = inputs(pair, dtype, 12_345 if "conv_dim" in CASES[case][2] else 6_000)
    summed = key_sums(pair.peer)
    theirs = pair.peer(waveforms, attention_mask=attention, mask_time_indices=mask, output_hidden_states=True)
    ours = pair.ours(waveforms, lengths, mask=mask)

    post = not getattr(pair.peer.config, "do_stable_layer_norm", False)
    assert len(ours.states) == len(theirs.hidden_states) == pair.peer.config.num_hidden_layers + 1
    for layer, (state, wanted) in enumerate(zip(ours.states, theirs.hidden_states, strict=True)):
        if post or layer < len(ours.states) - 1:  # theirs has its last state before the final norm
            torch.testing.assert_close(state, wanted, **tolerance, msg=lambda m, n=layer: f"state {n}: {m}")
    torch.testing.assert_close(ours.output, theirs.last_hidden_state, **tolerance)
    assert torch.equal(ours.hidden_states[-1], ours.output)
    if "extract_features" in theirs:
        torch.testing.assert_close(ours.normed, theirs.extract_features, **tolerance)

    weights = torch.randn(ours.output.shape, generator=torch.Generator().manual_seed(3), dtype=dtype) / ours.output.numel() ** 0.5
    (theirs.last_hidden_state * weights).sum().backward()
    (ours.output * weights).sum().backward()
    parameters = dict(pair.ours.named_parameters())
    checked = 0
    for name, parameter in pair.peer.named_parameters():
        gradient, wanted = parameters[pair.names[name]].grad, parameter.grad
        scale = summed[name] if name in summed else wanted.abs().max()  # the absolute tolerance is a share of the parameter's own largest
        torch.testing.assert_close(gradient / scale, wanted / scale, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
        checked += 1
    assert checked == len(parameters)
    assert len(summed) == pair.peer.config.num_hidden_layers


SEW_SIZES = {  # scripts/pt-sew.sh of the SEW repository; the convolutional extractor is the class's default, WFE-C with 64 channels
    "tiny": ({"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}, 12),
    "small": ({"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}, 12),
    "mid": ({"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}, 24),
}


@pytest.mark.parametrize("size", SEW_SIZES)
def test_sew_sizes_parameter_by_parameter(size: str) -> None:
    values, layers = SEW_SIZES[size]
    config = hf.SEWConfig(**values, num_hidden_layers=layers, num_conv_pos_embeddings=31, squeeze_factor=2)
    with torch.device("meta"):
        peer = hf.SEWModel(config)
        ours = Upstream(settings_from_transformers(config.to_dict()))
    names = peer_names(dict(ours.named_parameters()), rules("sew"))
    shapes = {name: tuple(parameter.shape) for name, parameter in peer.named_parameters()}
    assert {peer_name: tuple(ours.get_parameter(name).shape) for peer_name, name in names.items()} == shapes


def test_heads_are_named_and_old_weight_norm_is_read() -> None:
    config = hf.Wav2Vec2Config(**COMMON, **TINY)
    peer = hf.Wav2Vec2ForPreTraining(config)
    ours = Upstream(settings_from_transformers(config.to_dict()))
    state = {k.replace("parametrizations.weight.original0", "weight_g"): v for k, v in peer.state_dict().items()}
    state = {k.replace("parametrizations.weight.original1", "weight_v"): v for k, v in state.items()}
    assert any(key.endswith("conv.weight_v") for key in state)
    loaded = load_transformers_state(ours, state, "wav2vec2")
    assert loaded.kept == ()
    assert set(loaded.left_out) == {key for key in state if not key.startswith("wav2vec2.")}
    conv = peer.wav2vec2.encoder.pos_conv_embed.conv
    torch.testing.assert_close(ours.encoder.position.convs[0].weight, conv.weight, rtol=0, atol=0)


def test_what_does_not_fit_is_listed_and_nothing_is_changed() -> None:
    config = hf.Wav2Vec2Config(**COMMON, **TINY)
    state = hf.Wav2Vec2Model(config).state_dict()
    ours = Upstream(settings_from_transformers(config.to_dict()))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state["encoder.layers.7.extra.weight"] = torch.zeros(1)
    state["encoder.layer_norm.weight"] = torch.zeros(3)
    del state["masked_spec_embed"]
    with pytest.raises(UserError) as caught:
        load_transformers_state(ours, state, "wav2vec2")
    for word in ("1 missing: masked_spec_embed", "1 unexpected: encoder.layers.7.extra.weight", "encoder.layer_norm.weight is (3,)"):
        assert word in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"add_adapter": True}, "add_adapter"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"model_type": "wavlm"}, "wavlm"),
    ],
)
def test_settings_without_an_equal_are_refused_by_name(values: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        settings_from_transformers(hf.Wav2Vec2Config(**TINY).to_dict() | values)


@pytest.mark.parametrize("training", [False, True], ids=["argmax", "gumbel"])
def test_quantizer_is_theirs(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = hf.Wav2Vec2Config(conv_dim=[20] * 7, codevector_dim=12, num_codevector_groups=2, num_codevectors_per_group=7)
    torch.manual_seed(0)
    peer = Wav2Vec2GumbelVectorQuantizer(config).double().train(training)
    torch.nn.init.uniform_(peer.codevectors)
    peer.temperature = 1.3
    ours = Quantizer(QuantizerSettings(groups=2, codes=7, dim=12), 20).double()
    with torch.no_grad():
        ours.proj.load_state_dict(peer.weight_proj.state_dict())
        ours.codebooks.copy_(peer.codevectors.view(2, 7, 6))
    x = torch.randn(3, 5, 20, dtype=torch.float64)
    noise = gumbel_noise((3, 5, 2, 7), torch.Generator().manual_seed(4)).double() if training else None
    if training:  # theirs draws inside; give it the same noise (and keep float64, which it casts to float32)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        monkeypatch.setattr(
            torch.nn.functional, "gumbel_softmax", lambda logits, tau, hard: _gumbel_softmax(logits, tau, noise.view(logits.shape))
        )
    wanted, perplexity = peer(x)
    got = ours(x, 1.3, noise)
    torch.testing.assert_close(got.vectors, wanted, rtol=1e-9, atol=1e-12)
    shares = got.probs if training else torch.nn.functional.one_hot(got.ids, 7).double()
    mean = shares.mean((0, 1))
    torch.testing.assert_close(torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum(), perplexity, rtol=1e-9, atol=1e-12)
    weights = torch.randn_like(wanted)
    (wanted * weights).sum().backward()
    (got.vectors * weights).sum().backward()
    torch.testing.assert_close(ours.codebooks.grad.view(-1), peer.codevectors.grad.view(-1), rtol=1e-9, atol=1e-12)
    if training:
        torch.testing.assert_close(ours.proj.weight.grad, peer.weight_proj.weight.grad, rtol=1e-8, atol=1e-12)
    else:
        assert ours.proj.weight.grad is None and peer.weight_proj.weight.grad is None


def _gumbel_softmax(logits: torch.Tensor, tau: float, noise: torch.Tensor) -> torch.Tensor:
    soft = ((logits + noise) / tau).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard - soft.detach() + soft
