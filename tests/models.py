"""Tiny untrained models, and trainings of a fraction of a second, on sentences with one word that tells the label."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, TrainerCallback

from stages.common.digests import sha256_file
from stages.common.params import FinetuneParams
from stages.common.params.ingest import Scratch
from stages.common.params.tasks import task_spec
from stages.finetune.progress import write_curves
from stages.finetune.strategies import prepare
from stages.finetune.training import train, training_arguments
from stages.ingest.scratch import build_scratch_model
from stages.tasks import load_task
from stages.tasks.base import Task
from stages.tasks.text_classification import TASK, TextClassification
from stages.tasks.training import Space
from tests.projects import TINY

TELLING = {"bad": ["dull", "flat", "noisy"], "good": ["warm", "bright", "moving"], "odd": ["weird", "quaint", "eerie"]}
FILLER = ["the", "film", "was", "a", "story"]
TEXTS = [" ".join([*FILLER, *(word for words in TELLING.values() for word in words)])] * 3
LABELS = {"bad": 0, "good": 1}
LONGEST = 24  # tokens
SEED = 13

SHAPE = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
SHAPE |= {"max_position_embeddings": 40, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}

Knobs = Mapping[str, Any]
Splits = dict[str, pl.DataFrame]
QUICK: Knobs = {
    "num_train_epochs": 3,
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 16,
    "logging_steps": 3,
    "early_stopping_patience": 10,
}
# float32 and no dropout: numbers that can be compared
EXACT: Knobs = {"num_train_epochs": 2, "learning_rate": 5e-3, "logging_steps": 1, "bf16": False, "dropout": 0.0}


def make_base(folder: Path, texts: Sequence[str] = TEXTS) -> Path:
    """Write a scratch model of the tiny shape, and return its folder."""
    build_scratch_model(texts, Scratch(**TINY), folder, seed=0)
    return folder


def tiny_config(kind: str, **more: Any) -> PretrainedConfig:
    """Return the configuration of a model of this kind with three tiny layers."""
    return AutoConfig.for_model(kind, **{**SHAPE, **more})


def outspoken(network: PreTrainedModel, tokenizer: Any, texts: list[str]) -> None:
    """Make the answers of an untrained model differ much from text to text, with every label coming up."""
    with torch.no_grad():
        attention = network.bert.encoder.layer[0].attention
        for layer, factor in (
            (network.bert.embeddings.word_embeddings, 50),
            (attention.self.value, 20),  # the first token's state, which the head sees, is made of the others'
            (attention.output.dense, 20),
            (network.bert.pooler.dense, 10),
            (network.classifier, 100),
        ):
            layer.weight.mul_(factor)
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        network.classifier.bias.sub_(network.eval()(**tokens).logits.mean(0))


def build_model(base: Path, names: Sequence[str], dropout: float | None, seed: int) -> Any:
    """Return the base model with a new head for labels in this order."""
    return TASK.build_model(base, space_of(names), settings(dropout=dropout), seed)


class Scored(TextClassification):
    """The task, with other validation scores than its own."""

    def __init__(self, scores: Callable[[], dict[str, float]]) -> None:
        self._scores = scores

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return those that are given."""
        return self._scores()


def space_of(names: Sequence[str]) -> dict[str, Any]:
    """Return what text classification knows of labels in this order."""
    return {"labels": {name: number for number, name in enumerate(names)}}


KINDS: dict[str, tuple[Task, Space, list[Any]]] = {  # a task, what it knows, and the targets of the three labels
    "classes": (TASK, space_of(list(TELLING)), [0, 1, 2]),
    "sets": (
        load_task("multi-label"),
        {**space_of(["dark", "light"]), "rows": [3, 2, 2]},
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
    ),
    "numbers": (load_task("regression"), {"mean": 70.0, "deviation": 8.0}, [-1.0, 0.25, 1.5]),
}


def with_targets(splits: Splits, kind: str) -> Splits:
    """Return the rows with targets of this kind instead of their class numbers."""
    targets = KINDS[kind][2]
    return {
        name: rows.with_columns(labels=pl.Series([targets[number] for number in rows["labels"]]))
        for name, rows in splits.items()
    }


def make_finetuned(base: Path, folder: Path) -> Path:
    """Write an untrained model with tokenizer and head for `LABELS`, as `models/finetuned`."""
    build_model(base, list(LABELS), None, 0).save_pretrained(folder)
    return put_tokenizer(base, folder)


def put_tokenizer(base: Path, folder: Path, longest: int = LONGEST) -> Path:
    """Put the tokenizer of a base model, which cuts texts at so many tokens, beside a model; return the folder."""
    AutoTokenizer.from_pretrained(base, model_max_length=longest).save_pretrained(folder)
    return folder


def tokenized(
    base: Path, rows: int, seed: int, shares: tuple[float, ...] = (0.5, 0.5), flip: float = 0.0
) -> pl.DataFrame:
    """Token ids of sentences of 2 to 12 words with one that tells the label, but for a share of `flip` of two labels.

    `shares` are those of the labels, in the order of `TELLING`.
    """
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(shares), rows, p=shares)
    words = list(TELLING.values())
    texts = [
        " ".join([*generator.choice(FILLER, generator.integers(1, 12)), generator.choice(words[label])])
        for label in labels
    ]
    encoded = AutoTokenizer.from_pretrained(base)(texts, return_token_type_ids=True)
    stated = np.where(generator.random(rows) < flip, 1 - labels, labels)
    return pl.DataFrame(
        {
            "id": [str(number) for number in range(rows)],
            "input_ids": encoded["input_ids"],
            "token_type_ids": encoded["token_type_ids"],
            "labels": stated.tolist(),
            "length": [len(ids) for ids in encoded["input_ids"]],
        }
    )


def settings(like: Knobs = QUICK, **knobs: Any) -> FinetuneParams:
    """Return params of a training like this one, but for these knobs."""
    return FinetuneParams(**{**like, **knobs})


def trained(
    base: Path,
    splits: Splits,
    folder: Path,
    *callbacks: TrainerCallback,
    like: Knobs = QUICK,
    params: FinetuneParams | None = None,
    task: Task = TASK,
    space: Space | None = None,
    seed: int = SEED,
    **knobs: Any,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train as the stage does, by `params` or `settings` of the knobs; return the model and the trainer's log.

    `space` is by default that of as many labels of `TELLING` as there are class numbers.
    """
    params = params or settings(like, **knobs)
    folder.mkdir(parents=True, exist_ok=True)
    space = space or space_of(list(TELLING)[: max(len(LABELS), splits["train"]["labels"].n_unique())])
    model = prepare(task.build_model(base, space, params, seed), params, LONGEST, task.adapts)
    spec = task_spec(task.name)
    best = spec.score(params.metric_for_best_model or spec.main.name)
    arguments = training_arguments(params, folder, seed, splits["train"].height, best)
    tokenizer = AutoTokenizer.from_pretrained(base)
    history = train(model, tokenizer, splits, task, space, params, arguments, list(callbacks))
    return model, history


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights by name."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def losses(history: list[dict[str, Any]], which: str = "loss") -> list[float]:
    """Return one column of the trainer's log."""
    return [entry[which] for entry in history if which in entry]


class Cut(TrainerCallback):
    """End a training before one of these steps, as Ctrl-C does; note the steps that were begun."""

    def __init__(self, *before: int) -> None:
        self.before, self.begun = before, []

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """End it, or note the step."""
        if state.global_step + 1 in self.before:
            raise KeyboardInterrupt
        self.begun.append(state.global_step + 1)


def result(run: tuple[PreTrainedModel, list[dict[str, Any]]], folder: Path) -> tuple[str, str, str]:
    """Return digest of the weights and both curves: all that a training leaves."""
    model, history = run
    model.save_pretrained(folder)
    write_curves(history, folder / "training.csv", folder / "validation.csv")
    (weights,) = folder.glob("*.safetensors")
    return sha256_file(weights), (folder / "training.csv").read_text(), (folder / "validation.csv").read_text()
