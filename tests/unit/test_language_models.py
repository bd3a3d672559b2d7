"""Language models: what is packed or accumulated is what is alone, and losses are those of the learnt tokens."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from flows.prediction.model import Model
from flows.prediction.request import Request
from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.common.text.cleaning import TextCleaning
from stages.finetune.strategies import prepare, save
from stages.serving.backends import Package, Predictor
from stages.tasks.causal_lm import NUMBERS, TASK
from stages.tasks.language_models import Collator, keeps_apart, packs
from stages.tracking.package import copy_code
from tests.chats import PARAMS, SPACE, conversations, label, make_language_model, network, tokenized_chats
from tests.models import EXACT, SHAPE, Cut, losses, result, weights
from tests.models import trained as trained_like

Splits = dict[str, pl.DataFrame]
LIKE = {**EXACT, "learning_rate": 1e-2, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def splits(base: Path) -> Splits:
    return {"train": tokenized_chats(base, 40, 0), "validation": tokenized_chats(base, 12, 1)}


trained = partial(trained_like, like=LIKE, task=TASK, space=SPACE)


def rows_of(table: pl.DataFrame, count: int) -> list[dict[str, Any]]:
    return table.head(count).select("input_ids", "labels").to_dicts()


def tiny(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SHAPE, "num_key_value_heads": 2, **more})
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_packed_rows_have_the_loss_of_rows_alone(kind: str) -> None:
    model = tiny(kind).eval()
    draw = np.random.default_rng(0)
    rows = [
        {"input_ids": draw.integers(4, 60, size).tolist(), "labels": draw.integers(0, 2, size).tolist()}
        for size in (9, 5, 14)
    ]
    loss = TASK.loss_function(FinetuneParams(), {}, [])

    def of(packed: bool) -> torch.Tensor:
        batch = Collator(1, packed)(rows)
        labels = batch.pop("labels")
        assert batch["input_ids"].shape == ((1, 28) if packed else (3, 14))
        return loss(model(**batch).logits, labels)

    assert keeps_apart(model) and packs(model, True)
    assert torch.allclose(of(True), of(False), rtol=0, atol=1e-4)


def test_a_model_that_mixes_packed_rows_is_refused() -> None:
    model = tiny("rwkv")  # whose states run over the borders
    assert not keeps_apart(model)
    with pytest.raises(AttuneError, match="mixes rows"):
        packs(model, True)


def test_the_loss_is_that_of_transformers_on_the_learnt_tokens(base: Path, splits: Splits) -> None:
    model = network(base).eval()
    batch = Collator(0)(rows_of(splits["train"], 6))
    labels = batch.pop("labels")
    ours = TASK.loss_function(FinetuneParams(), {}, [])(model(**batch).logits, labels)
    theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert ours.mean().item() == pytest.approx(theirs.item(), abs=1e-5)
    assert len(ours) == TASK.items(labels) == sum(sum(row["labels"]) for row in rows_of(splits["train"], 6))


def test_accumulated_packed_and_checkpointed_steps_are_those_of_one_batch(
    base: Path, splits: Splits, tmp_path: Path
) -> None:
    def run(name: str, **knobs: Any) -> list[float]:
        return losses(trained(base, splits, tmp_path / name, num_train_epochs=1, **knobs)[1], "loss")

    knobs = {"group_by_length": False}
    whole = run("8x1", **knobs)
    assert len(whole) == 5 and whole[-1] < whole[0]
    for name, other in {
        "2x4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "packed": {"packing": True},
        "twice": {"gradient_checkpointing": True},
    }.items():
        assert run(name, **knobs, **other) == pytest.approx(whole, abs=2e-4), name


def test_the_validation_loss_is_that_of_tokens_and_not_of_batches(base: Path, splits: Splits, tmp_path: Path) -> None:
    model, history = trained(base, splits, tmp_path, per_device_eval_batch_size=5, num_train_epochs=1)
    batch = Collator(0)(rows_of(splits["validation"], 12))
    labels = batch.pop("labels")
    with torch.no_grad():
        mean = TASK.loss_function(FinetuneParams(), {}, [])(model.eval()(**batch).logits, labels).mean().item()
    assert losses(history, "eval_loss")[-1] == pytest.approx(mean, abs=1e-5)
    assert losses(history, "eval_perplexity")[-1] == pytest.approx(np.exp(mean), rel=1e-4)


@pytest.mark.parametrize("strategy", ["full", "lora", "adalora", "ia3"])
def test_a_cut_training_ends_as_a_whole_one_and_the_saved_model_answers_alike(
    base: Path, splits: Splits, tmp_path: Path, strategy: str
) -> None:
    knobs = {"strategy": strategy, "save_steps": 2, "num_train_epochs": 2}
    if strategy == "lora":
        knobs |= {"merge_adapter": False}
    whole, history = trained(base, splits, tmp_path / "whole", **knobs)
    with pytest.raises(KeyboardInterrupt):
        trained(base, splits, tmp_path / "cut", Cut(4), **knobs)
    resumed, again = trained(base, splits, tmp_path / "cut", **knobs)
    assert losses(again) == losses(history)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())

    folder = tmp_path / "saved"
    rows = conversations(5, 7)["label"].to_list()
    batch = Collator(0)(rows_of(tokenized_chats(base, 5, 7), 5))
    labels = batch.pop("labels")
    with torch.no_grad():
        before = TASK.scored(whole.eval()(**batch).logits, labels)
    tokenizer = AutoTokenizer.from_pretrained(base)
    TASK.finished(whole, SPACE | TASK.wording(tokenizer, FAKE), folder)
    save(whole, FinetuneParams(**{**LIKE, **knobs}), folder)
    tokenizer.save_pretrained(folder)
    outputs = Predictor(Package(folder), task=TASK.name).outputs(rows)
    assert outputs[:, :3] == pytest.approx(before.numpy(), abs=1e-3)
    assert outputs[:, 3].tolist() == [sum(len(part["content"]) for part in json.loads(row)[1::2]) for row in rows]
    merged = strategy in ("adalora", "ia3")
    assert (folder / "adapter").exists() == merged
    if merged:
        assert TASK.merge_gap(conversations(5, 7), base, folder) < 1e-4
        other = make_language_model(tmp_path / "other", seed=8)
        assert TASK.merge_gap(conversations(5, 7), other, folder) > 0.01


class FAKE:
    """Params of tokenize."""

    too_long, train_on = "reject", "all"


def test_only_the_layers_below_the_output_are_adapted(base: Path) -> None:
    params = FinetuneParams(strategy="lora")
    model = prepare(network(base), params, 128, TASK.adapts)
    adapted = {name.split(".lora_")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert len(adapted) == 2 * 7 and not any("lm_head" in name or "embed" in name for name in adapted)


def test_scores_are_those_of_all_tokens_and_bytes_together() -> None:
    outputs = np.array([[6.0, 3.0, 2.0, 10.0], [2.0, 1.0, 0.0, 6.0]])
    table = pl.DataFrame(TASK.decide(outputs, None))
    rows = pl.DataFrame({"label": [label("a", "b"), label("c", "d", system="e")]})
    evidence = TASK.evidence(rows, table)
    scores = evidence.scores(evidence.statistics.sum(axis=0))
    expected = {"nll": 2, "bits_per_byte": 0.5 / np.log(2), "perplexity": np.exp(2), "token_accuracy": 0.5}
    assert scores == pytest.approx(expected)
    assert table["confidence"].to_list() == pytest.approx([np.exp(-2)] * 2)
    assert TASK.is_correct(rows, table).tolist() == [True, False]
    assert TASK.slices(rows["label"]) == [
        ["1 answer", "without a system message"],
        ["1 answer", "with a system message"],
    ]
    (first, _) = TASK.answers(outputs, None, None, None)
    assert first.keys() < TASK.signature.keys() and first["tokens"] == 3
    assert list(json.loads(table["prediction"][0])) == list(NUMBERS)


def test_what_a_training_leaves_is_the_same_bytes_again(base: Path, splits: Splits, tmp_path: Path) -> None:
    first, second = (
        result(trained(base, splits, tmp_path / name, num_train_epochs=1), tmp_path / f"{name} saved") for name in "ab"
    )
    assert first == second


@pytest.fixture
def saved(base: Path, tmp_path: Path) -> Package:
    """A model as a training and an evaluation leave it."""
    model, serving = tmp_path / "model", tmp_path / "serving"
    shutil.copytree(base, model)
    TASK.finished(None, SPACE | TASK.wording(AutoTokenizer.from_pretrained(base), PARAMS), model)
    TASK.undecided(model).write(serving)
    (serving / TEXT_CLEANING).write_text(TextCleaning().as_text())
    return Package(model, None, serving)


def test_the_code_that_is_registered_with_a_model_answers_without_all_other(saved: Package, tmp_path: Path) -> None:
    copy_code(TASK.name, tmp_path / "stages")
    program = (
        "import sys; from pathlib import Path; from stages.serving.backends import Package, Predictor; "
        "print(Predictor(Package.within(Path())).outputs([sys.argv[1]]).shape)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", program, label("Open?", "Until six.")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 4)", done.stderr


def test_a_row_of_a_file_that_is_no_conversation_is_named(saved: Package, tmp_path: Path) -> None:
    request = Request("rows.jsonl", tmp_path / "out.csv", model=str(tmp_path), text="text")
    texts = [label("Open?", "Until six."), None, "Open? Until six.", label("Open?", "No.")]
    rows = pl.DataFrame(
        {"id": ["1", "2", "3", "4"], "text": texts, "text_pair": pl.Series([None] * 4, dtype=pl.String)}
    )
    with pytest.raises(AttuneError, match="the row 3 cannot be read: this is no list of messages"):
        Model(request, tmp_path).answers(rows)
    answers, _ = Model(request, tmp_path).answers(rows.filter(pl.col("id") != "3"))
    assert answers["loss"].is_null().to_list() == [False, True, False]
    assert TASK.profiled(rows["text"].head(1)).to_list() == ["Open?"], "what drift is measured on"
