"""The training and validation curves: numbers that depend on the inputs alone (no seconds, no rates)."""

import csv
from pathlib import Path
from typing import Any

Point = dict[str, float]

TRAINING = ("step", "epoch", "loss", "learning_rate")
VALIDATION = ("step", "epoch", "validation_loss", "validation_accuracy", "validation_macro_f1")


def training_point(entry: dict[str, Any]) -> Point | None:
    """Return step, epoch, loss and learning rate of an entry of the trainer's log, if it is one of training."""
    if "loss" not in entry or "learning_rate" not in entry:
        return None
    return {
        "step": entry["step"],
        "epoch": round(entry["epoch"], 4),
        "loss": entry["loss"],
        "learning_rate": entry["learning_rate"],
    }


def validation_point(entry: dict[str, Any]) -> Point | None:
    """Return step, epoch and scores of an entry of the trainer's log, if it is one of validation."""
    if "eval_loss" not in entry:
        return None
    scores = {f"validation_{name}": entry[f"eval_{name}"] for name in ("loss", "accuracy", "macro_f1")}
    return {"step": entry["step"], "epoch": round(entry["epoch"], 4), **scores}


def write_curves(history: list[dict[str, Any]], training: Path, validation: Path) -> None:
    """Write the two curves of a trainer's log as CSV, a row a point."""
    _write([point for entry in history if (point := training_point(entry))], TRAINING, training)
    _write([point for entry in history if (point := validation_point(entry))], VALIDATION, validation)


def _write(points: list[Point], columns: tuple[str, ...], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(points)
