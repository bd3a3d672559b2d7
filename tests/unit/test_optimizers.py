"""The optimisers: they learn, shrink what they shall, and know the layers."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from stages.common.errors import AttuneError
from stages.finetune.optimizers import build_optimizer, depths, encoder_layers
from stages.finetune.strategies import prepare
from tests.models import EXACT, LABELS, SEED, build_model, tiny_config
from tests.models import settings as settings_like

settings = partial(settings_like, EXACT)


def model_of(base: Path, **knobs: Any) -> PreTrainedModel:
    return prepare(build_model(base, list(LABELS), 0.0, SEED), settings(**knobs))


def by_name(model: nn.Module, optimizer: torch.optim.Optimizer, what: str) -> dict[str, float]:
    """What an optimiser's groups say of each weight."""
    values = {id(weight): group[what] for group in optimizer.param_groups for weight in group["params"]}
    return {name: values[id(weight)] for name, weight in model.named_parameters() if id(weight) in values}


@pytest.mark.parametrize(
    ("optim", "rate", "momentum"), [("adamw", 0.01, 0), ("sgd", 0.5, 0), ("sgd", 0.1, 0.9), ("adafactor", 0.01, 0)]
)
def test_every_optimiser_learns(base: Path, optim: str, rate: float, momentum: float) -> None:
    model = model_of(base)
    optimizer = build_optimizer(model, settings(optim=optim, learning_rate=rate, momentum=momentum))
    losses = []
    for _ in range(60):  # steps on two rows that have nothing in common
        optimizer.zero_grad()
        loss = model(input_ids=torch.arange(5, 15).view(2, 5), labels=torch.tensor([0, 1])).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.5 and losses[-1] < 0.1


def test_every_knob_of_an_optimiser_arrives(base: Path) -> None:
    for optim, knobs, expected in (
        ("adamw", {"adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 0.01}, {"betas": (0.5, 0.6), "eps": 0.01}),
        ("sgd", {"momentum": 0.7}, {"momentum": 0.7, "nesterov": True}),
        ("sgd", {}, {"momentum": 0.0, "nesterov": False}),
        ("adafactor", {}, {"scale_parameter": False, "relative_step": False}),
    ):
        group = build_optimizer(model_of(base), settings(optim=optim, weight_decay=0.5, **knobs)).param_groups[0]
        assert {name: group[name] for name in expected} == expected
        assert group["weight_decay"] == 0.5


@pytest.mark.parametrize("strategy", ["full", "lora", "ia3"])
def test_biases_norms_and_factors_around_one_do_not_shrink(base: Path, strategy: str) -> None:
    model = model_of(base, strategy=strategy)
    optimizer = build_optimizer(model, settings(strategy=strategy, weight_decay=0.3, l1=0.2))
    trained = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(trained) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    for what, value in {"weight_decay": 0.3, "l1": 0.2}.items():
        values = by_name(model, optimizer, what)
        assert set(values.values()) == {0.0, value}
        spared = {name for name in values if values[name] == 0}
        assert spared == {name for name in values if name.endswith("bias") or "LayerNorm" in name or ".ia3_l." in name}


def test_l1_takes_learning_rate_times_l1_off_each_weight_and_stops_at_zero() -> None:
    layer = nn.Linear(5, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.3, -0.3, 0.05, -0.05, 0.0]]))
        layer.bias.fill_(0.05)
    optimizer = build_optimizer(layer, settings(optim="sgd", learning_rate=0.5, l1=0.2, weight_decay=0.0))
    (layer.weight.sum() * 0 + layer.bias.sum() * 0).backward()
    optimizer.step()
    assert layer.weight[0].tolist() == pytest.approx([0.2, -0.2, 0.0, 0.0, 0.0])
    assert (layer.weight == 0).sum() == 3
    assert layer.bias.item() == pytest.approx(0.05)


def test_each_layer_has_a_share_of_the_learning_rate_of_the_one_above(base: Path) -> None:
    model = model_of(base)
    optimizer = build_optimizer(model, settings(learning_rate=0.8, layerwise_lr_decay=0.5))
    assert optimizer.param_groups[0]["lr"] == 0.8  # what the curve shows
    rates = by_name(model, optimizer, "lr")
    expected = {"classifier": 0.8, "pooler": 0.8, "layer.1": 0.4, "layer.0": 0.2, "embeddings": 0.1}
    assert set(rates) == {name for name, _ in model.named_parameters()}
    for name, rate in rates.items():
        assert rate == pytest.approx(next(value for part, value in expected.items() if f"{part}." in name))


DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
MODELS: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in ("bert", "roberta", "mpnet", "distilbert", "gpt2")},
    "electra": {"embedding_size": 4},
    "deberta-v2": {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"},
    "modernbert": {"global_attn_every_n_layers": 3},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16},
    "qwen2": {"num_key_value_heads": 2},
}


def classifier(kind: str, **shape: Any) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(tiny_config(kind, **shape))


@pytest.mark.parametrize("kind", MODELS)
def test_the_layers_of_the_usual_models_are_found(kind: str) -> None:
    model = classifier(kind, **MODELS[kind])
    assert len(encoder_layers(model)) == 3
    depth = depths(model)
    assert set(depth) == {name for name, _ in model.named_parameters()}
    tables = [name for name in depth if ("embed" in name or "wte" in name) and "layer." not in name]
    assert tables and {depth[name] for name in tables} == {4}
    heads = [name for name in depth if name.startswith(("classifier", "score", "logits_proj", "head"))]
    assert heads and {depth[name] for name in heads} == {0}
    for number in range(3):
        inside = [name for name in depth if re.search(rf"(layers?|\.h)\.{number}\.", name)]
        assert inside and {depth[name] for name in inside} == {3 - number}


def test_layers_that_share_their_weights_are_one() -> None:
    model = classifier("albert", embedding_size=4)
    assert len(encoder_layers(model)) == 1
    assert set(depths(model).values()) == {0, 1, 2}


def test_a_model_whose_layers_cannot_be_told_is_refused() -> None:
    model = classifier("bart", d_model=16, encoder_ffn_dim=8, decoder_ffn_dim=8)
    build_optimizer(model, settings())  # without layers to tell apart, all is well
    with pytest.raises(AttuneError, match="cannot tell the layers of this model") as caught:
        build_optimizer(model, settings(layerwise_lr_decay=0.9))
    assert "layerwise_lr_decay: 1.0" in caught.value.fix
