"""Whatever the section finetune may hold can be trained with; whatever contradicts itself is refused by name."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, DataCollatorWithPadding

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.finetune import GREATER_IS_BETTER
from stages.common.params.strategies import ADAPTERS
from stages.finetune.batches import TokenRows
from stages.finetune.loss import build_loss
from stages.finetune.optimizers import build_optimizer, build_schedule
from stages.finetune.strategies import prepare, with_strategy
from stages.finetune.training import training_arguments
from stages.tasks.text_classification import build_model
from tests.models import SEED, TELLING, tokenized
from tests.projects import params_of

LABELS = list(TELLING)[:2]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def batch(base: Path) -> dict[str, torch.Tensor]:
    rows = TokenRows(tokenized(base, 6, 0), ["input_ids", "token_type_ids"])
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(base))
    return dict(collate([rows[at] for at in range(len(rows))]))


# ── what may be ─────────────────────────────────────────────────────────────────────────────────────────────────────

SHARES = st.floats(0, 1)
RATES = st.floats(0, 0.9)
LINEAR = st.just("all-linear") | st.lists(st.sampled_from(["query", "value", "dense"]), min_size=1, unique=True)
LOW_RANK = {"lora_alpha": st.floats(0.1, 64), "lora_dropout": RATES, "target_modules": LINEAR}
IA3 = [
    {},
    {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
    {"target_modules": ["value"]},
]
OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "partial": st.fixed_dictionaries({"layers": st.integers(1, 2)}),
    "lora": st.fixed_dictionaries({"r": st.integers(1, 8), "use_rslora": st.booleans(), **LOW_RANK}),
    "adalora": st.integers(2, 6).flatmap(
        lambda most: st.fixed_dictionaries(
            {
                "init_r": st.just(most),
                "target_r": st.integers(1, most - 1),
                "tinit_ratio": st.floats(0, 0.4),
                "tfinal_ratio": st.floats(0, 0.4),
                **LOW_RANK,
            }
        )
    ),
    "ia3": st.sampled_from(IA3),
    "prefix": st.fixed_dictionaries({"num_virtual_tokens": st.integers(1, 8), "prefix_projection": st.booleans()}),
}
STRATEGIES = ["full", "head", *OPTIONS]
SCHEDULES, LOSSES = ["linear", "cosine", "exponential", "constant"], ["cross_entropy", "focal"]


def null_or(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def only(possible: bool, values: st.SearchStrategy[Any], else_: Any) -> st.SearchStrategy[Any]:
    """Draw a value where it may be set, and its neutral one where it would contradict another setting."""
    return values if possible else st.just(else_)


@st.composite
def sections(draw: st.DrawFn, strategies: list[str] = STRATEGIES) -> dict[str, Any]:
    """Draw a section with all of its keys, none of which contradicts another."""
    strategy, optim = draw(st.sampled_from(strategies)), draw(st.sampled_from(["adamw", "sgd", "adafactor"]))
    schedule, loss = draw(st.sampled_from(SCHEDULES)), draw(st.sampled_from(LOSSES))
    merging = [None, False] if strategy == "prefix" else [None, False, True]
    metric, grouped = draw(st.sampled_from(list(GREATER_IS_BETTER))), draw(st.booleans())
    train_on = draw(st.sampled_from(["train", "train_and_validation"]))
    final = draw({"constant": st.just(0.0), "exponential": st.floats(1e-6, 1)}.get(schedule, SHARES))
    weights = st.sampled_from(["none", "balanced"]) | st.fixed_dictionaries(dict.fromkeys(LABELS, st.floats(1e-3, 1e3)))
    drawn = {
        **{name: draw(only(name == strategy, null_or(values), None)) for name, values in OPTIONS.items()},
        "strategy": strategy,
        "merge_adapter": draw(only(strategy in ADAPTERS, st.sampled_from(merging), None)),
        "freeze_embeddings": draw(only(strategy == "full", st.booleans(), False)),
        "train_on": train_on,
        "num_train_epochs": draw(st.integers(1, 1000)),
        "learning_rate": draw(st.floats(0, 1, exclude_min=True)),
        "lr_scheduler_type": schedule,
        "lr_final_ratio": final,
        "warmup_ratio": draw(st.floats(0, 1, exclude_max=True) if final else SHARES),
        "layerwise_lr_decay": draw(only(strategy in ("full", "partial"), st.floats(0, 1, exclude_min=True), 1.0)),
        "per_device_train_batch_size": draw(st.integers(1, 4096)),
        "per_device_eval_batch_size": draw(st.integers(1, 4096)),
        "gradient_accumulation_steps": draw(st.integers(1, 4096)),
        "max_tokens_per_batch": draw(only(grouped, null_or(st.integers(16, 10**8)), None)),
        "group_by_length": grouped,
        "dataloader_num_workers": draw(st.integers(0, 256)),
        "nproc_per_node": draw(st.integers(1, 64)),
        "optim": optim,
        "adam_beta1": draw(only(optim == "adamw", st.floats(0, 1, exclude_max=True), 0.9)),
        "adam_beta2": draw(only(optim == "adamw", st.floats(0, 1, exclude_max=True), 0.999)),
        "adam_epsilon": draw(only(optim == "adamw", st.floats(1e-20, 1), 1e-8)),
        "momentum": draw(only(optim == "sgd", st.floats(0, 1, exclude_max=True), 0.0)),
        "weight_decay": draw(SHARES),
        "l1": draw(SHARES),
        "max_grad_norm": draw(st.floats(0, 1000)),
        "loss": loss,
        "focal_gamma": draw(only(loss == "focal", null_or(st.floats(0, 10)), None)),
        "label_smoothing_factor": draw(only(loss != "focal", RATES, 0.0)),
        "class_weights": draw(weights),
        "dropout": draw(null_or(RATES)),
        "metric_for_best_model": metric,
        "greater_is_better": draw(st.sampled_from([None, GREATER_IS_BETTER[metric]])),
        "early_stopping_patience": draw(only(train_on == "train", null_or(st.integers(1, 1000)), None)),
        "bf16": draw(st.sampled_from([True, False, "auto"])),
        "torch_num_threads": draw(null_or(st.integers(1, 1024))),
        "logging_steps": draw(st.integers(1, 100_000)),
        "save_steps": draw(null_or(st.integers(1, 10**7))),
    }
    assert set(drawn) == set(FinetuneParams.model_fields), "a new key must be drawn here too"
    return drawn


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=12)
@given(data=st.data())
def test_whatever_is_allowed_can_be_trained_with(
    base: Path, batch: dict[str, torch.Tensor], strategy: str, data: st.DataObject
) -> None:
    params = params_of(finetune=data.draw(sections([strategy]))).finetune
    arguments = training_arguments(params, Path("unused"), SEED, rows=100)
    width = batch["input_ids"].shape[1]
    model = prepare(build_model(base, LABELS, params.dropout, SEED), params, width)
    counts = [int((batch["labels"] == number).sum()) for number in range(len(LABELS))]
    plain = build_loss(params, {label: number for number, label in enumerate(LABELS)}, counts)
    objective, _ = with_strategy(model, params, plain)
    optimizer = build_optimizer(model, params)
    schedule = build_schedule(optimizer, params, steps=10)
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    model.train()
    torch.manual_seed(SEED)
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
        outputs = model(**inputs)
    loss = objective(outputs, batch["labels"], num_items_in_batch=torch.tensor(6))
    assert math.isfinite(loss.item())
    loss.backward()
    if arguments.max_grad_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
    optimizer.step()
    schedule.step()
    assert all(torch.isfinite(weights).all() for weights in model.parameters())
    assert all(0 <= rate <= params.learning_rate for rate in schedule.get_last_lr())


# ── what contradicts itself ─────────────────────────────────────────────────────────────────────────────────────────

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    *(({"strategy": "full", name: {"layers": 1} if name == "partial" else {}}, name) for name in OPTIONS),
    ({"strategy": "head", "merge_adapter": True}, "merge_adapter"),
    ({"strategy": "prefix", "merge_adapter": True}, "merge_adapter"),
    ({"strategy": "lora", "freeze_embeddings": True}, "freeze_embeddings"),
    ({"strategy": "head", "layerwise_lr_decay": 0.9}, "layerwise_lr_decay"),
    ({"lr_scheduler_type": "exponential", "lr_final_ratio": 0.0}, "lr_final_ratio"),
    ({"lr_scheduler_type": "constant", "lr_final_ratio": 0.1}, "lr_final_ratio"),
    ({"lr_scheduler_type": "cosine", "lr_final_ratio": 0.1, "warmup_ratio": 1.0}, "warmup_ratio"),
    ({"max_tokens_per_batch": 4096, "group_by_length": False}, "max_tokens_per_batch"),
    ({"optim": "adamw", "momentum": 0.9}, "momentum"),
    ({"optim": "sgd", "adam_beta1": 0.5}, "adam_beta1"),
    ({"optim": "sgd", "adam_epsilon": 0.5}, "adam_epsilon"),
    ({"loss": "cross_entropy", "focal_gamma": 2.0}, "focal_gamma"),
    ({"loss": "focal", "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
    ({"class_weights": {}}, "class_weights"),
    ({"class_weights": {1: 1.0, "1": 2.0}}, "class_weights"),
    ({"metric_for_best_model": "loss", "greater_is_better": True}, "greater_is_better"),
    ({"train_on": "train_and_validation", "early_stopping_patience": 2}, "early_stopping_patience"),
]


@pytest.mark.parametrize(("together", "key"), CONTRADICTIONS)
@settings(max_examples=6)
@given(around=sections())
def test_settings_that_contradict_each_other_are_always_refused_by_name(
    together: dict[str, Any], key: str, around: dict[str, Any]
) -> None:
    """Whatever else the section holds."""
    with pytest.raises(AttuneError) as caught:
        params_of(finetune={**around, **together})
    assert len([line for line in caught.value.what.splitlines() if f" finetune.{key}: " in line]) == 1
