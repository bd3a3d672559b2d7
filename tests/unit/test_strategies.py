"""Strategies: each trains what it says and nothing else, and what is saved answers as what was trained."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    TrainerCallback,
)

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.finetune import ADAPTERS
from stages.finetune.strategies import orthogonality, prepare, save, step_loss
from stages.tasks.encoder import output_layer
from stages.tasks.inference import load_classifier
from tests.models import EXACT, SEED, Splits, build_model, losses, tiny_config, tokenized, trained

LABELS = ["bad", "good"]
HIDDEN, LAYERS, LONGEST = 16, 2, 24
TEXTS = ["the film was warm", "a dull story", "moving bright a film was the story", "noisy"]

STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"strategy": "full"},
    "frozen embeddings": {"strategy": "full", "freeze_embeddings": True},
    "head": {"strategy": "head"},
    "partial": {"strategy": "partial", "partial": {"layers": 1}},
    "lora": {"strategy": "lora"},
    "adalora": {"strategy": "adalora", "adalora": {"init_r": 6, "target_r": 2}},
    "ia3": {"strategy": "ia3"},
    "prefix": {"strategy": "prefix", "prefix": {"num_virtual_tokens": 4}},
    "projected prefix": {"strategy": "prefix", "prefix": {"num_virtual_tokens": 4, "prefix_projection": True}},
}
WITH_ADAPTER = [name for name, knobs in STRATEGIES.items() if knobs["strategy"] in ADAPTERS]
MERGED = [name for name in WITH_ADAPTER if "prefix" not in name]


@pytest.fixture(scope="module")
def splits(base: Path) -> Splits:
    """Sixteen rows again and again, so that each batch has them all, and a loss that rises has no excuse."""
    few = tokenized(base, 16, 0)
    return {"train": pl.concat([few] * 8), "validation": few}


def settings(**knobs: Any) -> FinetuneParams:
    rate = 5e-2 if knobs["strategy"] in ("head", "ia3", "prefix") else 5e-3
    quick = {"learning_rate": rate, "per_device_train_batch_size": 16, "group_by_length": False}
    return FinetuneParams(**{**EXACT, **quick, "early_stopping_patience": None, **knobs})


def fresh(base: Path) -> PreTrainedModel:
    return build_model(base, LABELS, 0.0, SEED)


def prepared(base: Path, **knobs: Any) -> PreTrainedModel:
    return prepare(fresh(base), settings(**knobs), LONGEST)


@torch.inference_mode()
def logits(model: PreTrainedModel, base: Path) -> torch.Tensor:
    model.eval()
    return model(**AutoTokenizer.from_pretrained(base)(TEXTS, return_tensors="pt", padding=True)).logits


def plain(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the base model inside of peft's, under their own names; the head's are those that train."""
    tensors = {}
    for name, value in state.items():
        own = name.removeprefix("base_model.model.").removeprefix("base_model.").replace(".base_layer", "")
        if not any(mark in own for mark in ("lora_", "ia3_", "ranknum", "prompt_encoder", "original_module")):
            tensors[own.replace(".modules_to_save.default", "")] = value.detach().clone()
    tensors.pop("word_embeddings.weight", None)  # peft keeps them twice
    return tensors


@dataclass
class Trained:
    """What came of a strategy's training, and the folder in which it was saved, adapters kept beside the weights."""

    model: PreTrainedModel
    history: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]
    logits: torch.Tensor
    folder: Path


@pytest.fixture(scope="module")
def run(base: Path, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return a function that trains once by a strategy."""

    @cache
    def of(name: str) -> Trained:
        work = tmp_path_factory.mktemp("run")
        knobs = {**STRATEGIES[name], "merge_adapter": False if name in WITH_ADAPTER else None}
        model, history = trained(base, splits, work / "work", params=settings(**knobs))
        answers = logits(model, base)
        save(copy.deepcopy(model), settings(**knobs), work / "model")
        return Trained(model, history, plain(model.state_dict()), answers, work / "model")

    return of


HEAD = {"classifier.weight", "classifier.bias"}
UPPER = ("bert.encoder.layer.1.", "bert.pooler.")
CHANGING: dict[str, Callable[[str], bool]] = {
    "full": lambda name: True,
    "frozen embeddings": lambda name: name != "bert.embeddings.word_embeddings.weight",
    "partial": lambda name: name in HEAD or name.startswith(UPPER),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_only_what_the_strategy_trains_changes_and_the_loss_falls(
    run: Callable[[str], Trained], base: Path, name: str
) -> None:
    before, after = plain(fresh(base).state_dict()), run(name).weights
    assert set(after) == set(before)
    changed = {weight for weight in after if not torch.equal(after[weight], before[weight])}
    assert changed == {weight for weight in before if CHANGING.get(name, HEAD.__contains__)(weight)}
    first, last = losses(run(name).history, "eval_loss")
    assert last < first < np.log(2)


def test_a_pooler_that_the_base_lacks_trains_with_the_head(base: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(base)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    head = 2 * HIDDEN + 2 + HIDDEN * HIDDEN + HIDDEN
    for strategy, size in {"head": head, "prefix": head + 20 * 2 * LAYERS * HIDDEN}.items():
        model = prepare(build_model(tmp_path, LABELS, None, SEED), settings(strategy=strategy))
        assert sum(weights.numel() for weights in model.parameters() if weights.requires_grad) == size


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_saved_model_answers_as_before(run: Callable[[str], Trained], base: Path, name: str) -> None:
    """The head of an adapter is the one that gets lost (peft#310, #577, #876)."""
    folder, answers = run(name).folder, run(name).logits
    beside = {"adapter_config.json", "adapter_model.safetensors"} if name in WITH_ADAPTER else set()
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"} | beside
    loaded = load_classifier(folder)
    assert torch.equal(logits(loaded, base), answers)
    assert not torch.equal(answers, logits(fresh(base), base))
    assert loaded.name_or_path == str(folder)  # MLflow looks for a licence there, and else on the Hub
    if "prefix" not in name:
        assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(folder), base), answers)


@pytest.mark.parametrize("name", MERGED)
def test_a_merged_model_answers_as_before(run: Callable[[str], Trained], base: Path, tmp_path: Path, name: str) -> None:
    save(copy.deepcopy(run(name).model), settings(**STRATEGIES[name]), tmp_path)  # merging is the default
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    for model in (load_classifier(tmp_path), load_classifier(run(name).folder).merge_and_unload()):
        torch.testing.assert_close(logits(model, base), run(name).logits, atol=1e-5, rtol=1e-5)


def test_the_head_is_in_the_adapter_and_in_the_base(run: Callable[[str], Trained]) -> None:
    folder = run("lora").folder
    whole, adapter = (load_file(folder / f"{kind}model.safetensors") for kind in ("", "adapter_"))
    assert torch.equal(adapter["base_model.model.classifier.weight"], whole["classifier.weight"])
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["modules_to_save"], config["base_model_name_or_path"]) == (["classifier"], None)
    names = config["target_modules"]  # a set to peft, whose order differs from process to process
    assert len(names) > 1 and names == sorted(names)


def test_an_adapter_that_is_no_safetensors_file_is_not_loaded(base: Path, tmp_path: Path) -> None:
    save(prepared(base, strategy="lora"), settings(strategy="lora", merge_adapter=False), tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load_classifier(tmp_path)


def test_ranks_fall_to_their_target_and_stay(base: Path, splits: Splits, tmp_path: Path) -> None:
    left: list[int] = []

    class Ranks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            values = [value for name, value in given["model"].named_parameters() if "lora_E" in name]
            left.append(int(sum((value != 0).sum() for value in values)))

    options = {"init_r": 4, "target_r": 2, "tinit_ratio": 0.3, "tfinal_ratio": 0.3}
    params = settings(strategy="adalora", adalora=options, num_train_epochs=3, warmup_ratio=0.0)
    trained(base, splits, tmp_path, Ranks(), params=params)
    updates = 6 * LAYERS + 1
    assert left[:7] == [4 * updates] * 7 and left[7] < 4 * updates  # 0.3 of 24 steps
    assert left[7:16] == sorted(left[7:16], reverse=True)
    assert left[16:] == [2 * updates] * 8


def test_orthogonality_is_part_of_the_training_loss_and_not_of_validation(base: Path) -> None:
    model = prepared(base, strategy="adalora", adalora={"init_r": 2, "target_r": 1})
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                value.copy_(torch.eye(*value.shape))
    assert orthogonality(model) == 0
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_A" in name)[0, 0] = 2.0  # PP' - 1 is 3 there
    assert orthogonality(model).item() == pytest.approx(3 / (2 * (6 * LAYERS + 1)))
    loss, _ = step_loss(model, settings(strategy="adalora"), lambda logits, targets: torch.ones(len(targets)))
    outputs = SimpleNamespace(logits=torch.zeros(4, 2))
    whole = 0.5 * orthogonality(model).item()  # the weight that peft gives it
    halves = loss(outputs, torch.zeros(4), torch.tensor(8))  # two passes of four rows are one step
    assert halves.item() == pytest.approx((1 + whole) / 2)
    with torch.no_grad():
        assert loss(outputs, torch.zeros(4)).item() == 1


def test_a_training_too_short_for_adalora_is_refused(base: Path, splits: Splits, tmp_path: Path) -> None:
    params = settings(strategy="adalora", num_train_epochs=1, per_device_train_batch_size=128)
    with pytest.raises(AttuneError, match="ranks cannot fall in a training of 1 step"):
        trained(base, splits, tmp_path, params=params)


SHAPES: dict[str, dict[str, Any]] = {
    "distilbert": {"hidden_dim": 32},
    "deberta-v2": {"pooler_hidden_size": 16, "relative_attention": True, "pos_att_type": ["p2c"]},
}
HEADS = {
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "distilbert": {"pre_classifier", "classifier"},
    "deberta-v2": {"pooler.dense", "classifier"},
    "gpt2": {"score"},
}
UNFIT = {("ia3", "distilbert"), ("prefix", "distilbert"), ("prefix", "deberta-v2")}
IDS = torch.tensor([[5, 9, 11, 7, 8], [6, 12, 7, 4, 3]])


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in HEADS:
        torch.manual_seed(1)
        folders[kind] = tmp_path_factory.mktemp(kind)
        AutoModel.from_config(tiny_config(kind, **SHAPES.get(kind, {}))).save_pretrained(folders[kind])
    return folders


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        (kind, strategy)
        for kind in HEADS
        for strategy in ("head", "partial", "prefix", "lora", "adalora", "ia3")
        if (strategy, kind) not in UNFIT  # refused, below
    ],
)
def test_heads_and_layers_are_found_in_other_models(
    others: dict[str, Path], tmp_path: Path, kind: str, strategy: str
) -> None:
    params = settings(strategy=strategy, **({"prefix": {"num_virtual_tokens": 3}} if strategy == "prefix" else {}))
    model = prepare(build_model(others[kind], LABELS, None, SEED), params)
    training = plain({name: value for name, value in model.named_parameters() if value.requires_grad})
    beside = {name.rpartition(".")[0] for name in training}
    layers = {name for name in beside if ".layer." in name or ".h." in name or name.startswith("roberta.pooler")}
    assert beside - layers == HEADS[kind]
    numbers = {part for name in layers for part in name.split(".") if part.isdigit()}
    assert numbers == ({"1", "2"} if strategy == "partial" else set())
    torch.manual_seed(4)
    with torch.inference_mode():
        for value in model.parameters():  # as if it had been trained
            if value.requires_grad:
                value.add_(torch.randn(value.shape), alpha=0.3)
        expected = 2 * model.eval()(input_ids=IDS).logits
        for value in output_layer(model).parameters():  # as a task that learns numbers does
            value.mul_(2)
        save(model, params, tmp_path)
        loaded = load_classifier(tmp_path)(input_ids=IDS).logits
    # without merging the weights are the same; on some processors the last bit depends on where they lie in memory
    close = 1e-4 if params.merges else 1e-6
    torch.testing.assert_close(loaded, expected, atol=close, rtol=close)


@pytest.mark.parametrize(
    ("kind", "strategy", "options", "wrong", "advice"),
    [
        ("bert", "partial", {"layers": 3}, "partial.layers is 3", "set it to 2 or less"),
        ("bert", "lora", {"target_modules": ["query", "valeu"]}, "has 'valeu'", "choose out of dense, .*value"),
        ("bert", "prefix", {"num_virtual_tokens": 41}, "cannot put prefix around", "or tokenize.max_length"),
        ("distilbert", "prefix", {}, "specify `token_dim`", "lora, which suits every model"),
        ("deberta-v2", "prefix", {}, "cannot put prefix around", "lora, which suits every model"),
        ("distilbert", "ia3", {}, "specify `target_modules`", "k_lin, lin1, lin2, out_lin, q_lin, v_lin"),
    ],
)
def test_what_does_not_suit_the_model_is_refused_with_advice(
    base: Path, others: dict[str, Path], kind: str, strategy: str, options: dict[str, Any], wrong: str, advice: str
) -> None:
    model = build_model(others.get(kind, base), LABELS, None, SEED)
    with pytest.raises(AttuneError, match=wrong) as error:
        prepare(model, settings(strategy=strategy, **{strategy: options}), LONGEST)
    assert error.match(advice)
