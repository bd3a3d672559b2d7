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
from stages.common.params.finetune import ONLY_WITH
from stages.common.params.tasks import task_spec
from stages.finetune.batches import TokenRows
from stages.finetune.optimizers import build_optimizer, build_schedule
from stages.finetune.strategies import prepare, step_loss
from stages.finetune.training import training_arguments
from stages.tasks.text_classification import TASK
from tests.models import SEED, TELLING, space_of, tokenized
from tests.projects import params_of

LABELS, SPEC = list(TELLING)[:2], task_spec("text-classification")
SCORES = ["loss", *(score.name for score in SPEC.scores)]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def batch(base: Path) -> dict[str, torch.Tensor]:
    rows = TokenRows(tokenized(base, 6, 0), ["input_ids", "token_type_ids"])
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(base))
    return dict(collate([rows[index] for index in range(len(rows))]))


RATES = st.floats(0, 0.9)
LINEAR = st.just("all-linear") | st.lists(st.sampled_from(["query", "value", "dense"]), min_size=1, unique=True)
LOW_RANK = {"lora_alpha": st.floats(0.1, 64), "lora_dropout": RATES, "target_modules": LINEAR}
BUDGET = {"init_r": st.integers(4, 6), "target_r": st.integers(1, 3)}
BUDGET |= dict.fromkeys(["tinit_ratio", "tfinal_ratio"], st.floats(0, 0.4))
IA3 = [
    {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
    {"target_modules": ["value"]},
]
OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "partial": st.fixed_dictionaries({"layers": st.integers(1, 2)}),
    "lora": st.fixed_dictionaries({"r": st.integers(1, 8), "use_rslora": st.booleans(), **LOW_RANK}),
    "adalora": st.fixed_dictionaries(BUDGET | LOW_RANK),
    "ia3": st.sampled_from(IA3),
    "prefix": st.fixed_dictionaries({"num_virtual_tokens": st.integers(1, 8), "prefix_projection": st.booleans()}),
}
STRATEGIES = ["full", "head", *OPTIONS]
WEIGHTS = st.sampled_from(["none", "balanced"]) | st.fixed_dictionaries(dict.fromkeys(LABELS, st.floats(1e-3, 1e3)))


def allowed(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw a number or word that the JSON schema of a key allows."""
    if "anyOf" in field:
        return st.one_of(*map(allowed, field["anyOf"]))
    if "enum" in field:
        return st.sampled_from(field["enum"])
    low, high = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum", field.get("exclusiveMaximum"))
    if field.get("type") == "number":
        return st.floats(low, high, exclude_min="exclusiveMinimum" in field, exclude_max="exclusiveMaximum" in field)
    return {"integer": st.integers(low, high), "boolean": st.booleans()}.get(field.get("type", ""), st.none())


DRAWN = {name: allowed(field) for name, field in FinetuneParams.model_json_schema()["properties"].items()}
DRAWN |= {name: st.none() | options for name, options in OPTIONS.items()}
DRAWN |= {"loss": st.sampled_from([None, *SPEC.losses]), "metric_for_best_model": st.sampled_from([None, *SCORES])}
DRAWN |= dict.fromkeys(("packing", "gradient_checkpointing"), st.just("auto"))  # of language models
DRAWN |= {"class_weights": WEIGHTS, "dropout": st.none() | RATES, "label_smoothing_factor": RATES}


@st.composite
def sections(draw: st.DrawFn, strategies: list[str] = STRATEGIES) -> dict[str, Any]:
    """Draw a section with all of its keys, none of which contradicts another."""
    section = draw(st.fixed_dictionaries(DRAWN | {"strategy": st.sampled_from(strategies)}))
    for name, (neutral, other, values) in ONLY_WITH.items():
        if section[other] not in values:
            section[name] = neutral
    section["greater_is_better"] = draw(st.sampled_from([None, section["metric_for_best_model"] != "loss"]))
    section["warmup_ratio"] *= 0.9
    if section["strategy"] == "prefix":
        section["merge_adapter"] = None
    if section["lr_scheduler_type"] == "exponential":
        section["lr_final_ratio"] = max(section["lr_final_ratio"], 1e-6)
    return section


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=8)
@given(data=st.data())
def test_whatever_is_allowed_can_be_trained_with(
    base: Path, batch: dict[str, torch.Tensor], strategy: str, data: st.DataObject
) -> None:
    params = params_of(finetune=data.draw(sections([strategy]))).finetune
    best = SPEC.score(params.metric_for_best_model or SPEC.main.name)
    arguments, space = training_arguments(params, Path("unused"), SEED, 100, best), space_of(LABELS)
    width = batch["input_ids"].shape[1]
    model = prepare(TASK.build_model(base, space, params, SEED), params, width)
    objective, _ = step_loss(model, params, TASK.loss_function(params, space, batch["labels"].tolist()))
    optimizer = build_optimizer(model, params)
    schedule = build_schedule(optimizer, params, steps=10)
    model.train()
    torch.manual_seed(SEED)
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
        outputs = model(**{name: values for name, values in batch.items() if name != "labels"})
    loss = objective(outputs, batch["labels"], num_items_in_batch=torch.tensor(6))
    assert math.isfinite(loss.item())
    loss.backward()
    if arguments.max_grad_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
    optimizer.step()
    schedule.step()
    assert all(torch.isfinite(weights).all() for weights in model.parameters())
    assert all(0 <= rate <= params.learning_rate for rate in schedule.get_last_lr())


@pytest.mark.parametrize(
    ("together", "key"),
    [
        *(({"strategy": "full", name: {"layers": 1} if name == "partial" else {}}, name) for name in OPTIONS),
        *(({"strategy": name, "merge_adapter": True}, "merge_adapter") for name in ("head", "prefix")),
        ({"lr_scheduler_type": "exponential", "lr_final_ratio": 0.0}, "lr_final_ratio"),
        ({"lr_scheduler_type": "cosine", "lr_final_ratio": 0.1, "warmup_ratio": 1.0}, "warmup_ratio"),
        ({"max_tokens_per_batch": 4096, "group_by_length": False}, "max_tokens_per_batch"),
        ({"loss": "focal", "label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"class_weights": {}}, "class_weights"),
        ({"class_weights": {1: 1.0, "1": 2.0}}, "class_weights"),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "greater_is_better"),
        ({"train_on": "train_and_validation", "early_stopping_patience": 2}, "early_stopping_patience"),
    ],
)
@settings(max_examples=6)
@given(around=sections())
def test_settings_that_contradict_each_other_are_always_refused_by_name(
    together: dict[str, Any], key: str, around: dict[str, Any]
) -> None:
    """Whatever else the section holds."""
    with pytest.raises(AttuneError) as raised:
        params_of(finetune={**around, **together})
    assert raised.value.what.count(f" finetune.{key}: ") == 1
