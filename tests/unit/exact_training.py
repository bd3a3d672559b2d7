"""A training of exact numbers, small enough for a test: a tiny model, sentences with one word that tells the label."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import AutoTokenizer, PreTrainedModel, TrainerCallback

from stages.common.params import FinetuneParams
from stages.common.params.sources import Scratch
from stages.finetune.arguments import training_arguments
from stages.finetune.strategies import prepare
from stages.finetune.training import train
from stages.ingest.scratch import build_scratch_model
from stages.tasks.text_classification import build_model, validation_metrics

TELLING = {"bad": ["dull", "flat", "noisy"], "good": ["warm", "bright", "moving"], "odd": ["weird", "quaint", "eerie"]}
FILLER = ["the", "film", "was", "a", "story"]
SEED = 13


def make_base(folder: Path, layers: int = 1) -> Path:
    """Write a scratch model of so many layers of width 16, and return its folder."""
    shape = {"vocab_size": 200, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 32}
    texts = [" ".join([*FILLER, *(word for words in TELLING.values() for word in words)])] * 3
    build_scratch_model(texts, Scratch(num_hidden_layers=layers, **shape), folder, seed=0)
    return folder


def tokenized(base: Path, rows: int, seed: int, shares: tuple[float, ...] = (0.5, 0.5)) -> pl.DataFrame:
    """Token ids of sentences of 2 to 12 words with one that tells the label; `shares` of the labels, in their order."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(shares), rows, p=shares)
    words = list(TELLING.values())
    texts = [
        " ".join([*generator.choice(FILLER, generator.integers(1, 12)), generator.choice(words[label])])
        for label in labels
    ]
    encoded = AutoTokenizer.from_pretrained(base)(texts, return_token_type_ids=True)
    return pl.DataFrame(
        {
            "id": [str(at) for at in range(rows)],
            "input_ids": encoded["input_ids"],
            "token_type_ids": encoded["token_type_ids"],
            "labels": labels.tolist(),
            "length": [len(ids) for ids in encoded["input_ids"]],
        }
    )


def settings(**knobs: Any) -> FinetuneParams:
    """Params of a training of exact numbers: float32, no dropout."""
    exact = {"num_train_epochs": 2, "learning_rate": 5e-3, "logging_steps": 1, "bf16": False, "dropout": 0.0}
    return FinetuneParams(**{**exact, **knobs})


def trained(
    base: Path, splits: dict[str, pl.DataFrame], folder: Path, *callbacks: TrainerCallback, **knobs: Any
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train as the stage does; return the model and the trainer's log."""
    params = settings(**knobs)
    labels = list(TELLING)[: splits["train"]["labels"].n_unique()]
    model = prepare(build_model(base, labels, params.dropout, SEED), params, 32)
    arguments = training_arguments(params, folder, SEED, splits["train"].height)
    numbers = {label: number for number, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(base)
    history = train(model, tokenizer, splits, numbers, params, arguments, validation_metrics, list(callbacks))
    return model, history


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights by name."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
