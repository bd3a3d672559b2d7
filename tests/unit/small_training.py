"""A training of a fraction of a second: a tiny untrained model, and sentences with one word that tells the label."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import AutoTokenizer, PreTrainedModel, TrainerCallback

from stages.common.digests import sha256_file
from stages.common.params import FinetuneParams
from stages.common.params.sources import Scratch
from stages.finetune.arguments import training_arguments
from stages.finetune.curves import write_curves
from stages.finetune.strategies import prepare
from stages.finetune.training import train
from stages.ingest.scratch import build_scratch_model
from stages.tasks.text_classification import build_model, validation_metrics

GOOD, BAD = ["warm", "bright", "moving"], ["dull", "flat", "noisy"]
FILLER = ["the", "film", "was", "a", "story"]
LABELS = {"bad": 0, "good": 1}
SEED = 13


def make_base(folder: Path) -> Path:
    """Write a tiny base model."""
    scratch = Scratch(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32
    )
    build_scratch_model([" ".join([*GOOD, *BAD, *FILLER])] * 3, scratch, folder, seed=0)
    return folder


def tokenized(base: Path, rows: int, seed: int) -> pl.DataFrame:
    """Token ids of sentences of 2 to 12 words."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, rows)
    texts = [
        " ".join([*generator.choice(FILLER, generator.integers(1, 12)), generator.choice(GOOD if label else BAD)])
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
    """Return params of a quick training."""
    quick = {
        "num_train_epochs": 3,
        "learning_rate": 5e-3,
        "per_device_train_batch_size": 16,
        "logging_steps": 3,
        "early_stopping_patience": 10,
    }
    return FinetuneParams(**{**quick, **knobs})


def trained(
    base: Path,
    splits: dict[str, pl.DataFrame],
    folder: Path,
    *callbacks: TrainerCallback,
    metrics: Any = validation_metrics,
    **knobs: Any,
) -> tuple[PreTrainedModel, list[dict[str, Any]]]:
    """Train as the stage does, with checkpoints in `folder`; return the model and the trainer's log."""
    params = settings(**knobs)
    folder.mkdir(parents=True, exist_ok=True)
    model = prepare(build_model(base, list(LABELS), params.dropout, SEED), params, 32)
    history = train(
        model,
        AutoTokenizer.from_pretrained(base),
        splits,
        LABELS,
        params,
        training_arguments(params, folder, SEED, splits["train"].height),
        metrics,
        list(callbacks),
    )
    return model, history


def result(run: tuple[PreTrainedModel, list[dict[str, Any]]], folder: Path) -> tuple[str, str, str]:
    """Return digest of the weights and both curves: all that a training leaves."""
    model, history = run
    model.save_pretrained(folder)
    write_curves(history, folder / "training.csv", folder / "validation.csv")
    (weights,) = folder.glob("*.safetensors")
    return sha256_file(weights), (folder / "training.csv").read_text(), (folder / "validation.csv").read_text()
