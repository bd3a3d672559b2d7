"""`python -m flows.crossvalidate`: train once per fold, on the other folds, and give mean and spread of the scores.

The folds are those that `clean.split.folds` draws. A fold that is finished is not trained again. It is a plain program
for the reasons given in flows/tune.py.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from flows.search.epochs import SCORES, Epoch, best_epoch
from flows.search.fold_rows import TOKENIZED, checked_folds, read_rows, split_fold
from flows.search.fold_scores import summarize
from flows.search.params_patch import difference, patched, read_text, write_params
from flows.search.trials import Trial, prepare_trial, run_trial
from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.params.loading import PARAMS_FILE, read_yaml
from stages.common.schemas import TokenizedRecords
from stages.common.stage import WORK, alone, write_json
from stages.common.tracking.nested import NestedRuns

REPORT = Path("reports/crossvalidation.json")
FOLDS = WORK / "folds"
FINAL = {"finetune.train_on": "train_and_validation", "finetune.early_stopping_patience": None}


@dataclass(frozen=True)
class Fold:
    """A fold's training, its rows and what came of it."""

    number: int
    trial: Trial
    train_rows: int
    held_out_rows: int


def main(arguments: list[str] | None = None) -> int:
    """Train and score each fold; show the table and write the report."""
    asked = _parser().parse_args(arguments)
    return exit_status(
        lambda: _validate(final=asked.final, keep_models=asked.keep_models),
        "the cross-validation was interrupted; the same command goes on with it",
    )


def _validate(*, final: bool, keep_models: bool) -> int:
    console = Console(highlight=False, soft_wrap=True)
    data = read_yaml(PARAMS_FILE)
    params = check_params(data)
    with alone("trials"):
        number = checked_folds(params)
        rows, placed = read_rows(number)
        folds = [prepare_fold(data, at, rows, placed) for at in range(number)]
        epochs = train_folds(params, folds, console, keep_models=keep_models)
        report = make_report(params, folds, epochs)
        REPORT.parent.mkdir(exist_ok=True)
        write_json(report, REPORT)
        console.print(_table(report))
        console.print(Text(f"the same in {REPORT}; how to read it: docs/tuning.md"))
    return train_final(console) if final else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.crossvalidate", description="Train once per fold, on the rows of the others."
    )
    parser.add_argument("--final", action="store_true", help="then train on train and validation: the whole pipeline")
    parser.add_argument("--keep-models", action="store_true", help="keep the weights of folds in .attune/trials/")
    return parser


def prepare_fold(data: Any, number: int, rows: pl.DataFrame, placed: pl.DataFrame) -> Fold:
    """Write the rows of a fold's training, out of what `read_rows` gives, and lay out its trial."""
    train, held_out = split_fold(rows, placed, number)
    files = {TOKENIZED.format(name): FOLDS / str(number) / f"{name}.parquet" for name in ("train", "validation")}
    for part, path in zip((train, held_out), files.values(), strict=True):
        TokenizedRecords.write(part, path)
    return Fold(number, prepare_trial(data, files), train.height, held_out.height)


def train_folds(params: Params, folds: list[Fold], console: Console, *, keep_models: bool) -> list[list[Epoch]]:
    """Train the folds that are not finished, one after the other; return the epochs of all.

    Raises:
        AttuneError: if one of them fails.
    """
    key = sha256_value([fold.trial.digest for fold in folds])[:16]
    runs = NestedRuns(params, key, f"cross-validation, {len(folds)} folds", {"attune.crossvalidation": key})
    epochs: list[list[Epoch]] = []
    for fold in folds:
        trial = fold.trial
        cached = trial.finished(keep_models)
        run_id = runs.begin(trial.params, trial.digest[:16], f"fold {fold.number}")
        try:
            epochs.append(run_trial(trial, run_id, keep_model=keep_models))
        except AttuneError as error:
            runs.end(run_id, "failed", error.what, trial.curve, {})
            raise AttuneError(f"the training of fold {fold.number} failed; its last lines:\n{error.what}") from None
        best = best_epoch(epochs[-1], params)
        runs.end(run_id, "complete", "", trial.curve, best.metrics())
        how = "finished before" if cached else "trained"
        console.print(
            f"fold {fold.number}: accuracy {best.accuracy:.4f}, macro-F1 {best.macro_f1:.4f}, loss {best.loss:.4f} "
            f"({how})"
        )
    means = _means(params, folds, [best_epoch(of_fold, params) for of_fold in epochs])
    runs.finish({f"{part}_{name}": value for name, parts in means.items() for part, value in parts.items()})
    return epochs


def make_report(params: Params, folds: list[Fold], epochs: list[list[Epoch]]) -> dict[str, Any]:
    """Return the report: mean and spread, and the scores of each fold at the epoch that is kept and at the last one."""
    kept = [best_epoch(of_fold, params) for of_fold in epochs]
    last = [of_fold[-1] for of_fold in epochs]
    return {
        "inputs": sha256_value([fold.trial.digest for fold in folds]),
        "confidence": params.evaluate.bootstrap.confidence,
        "kept_epoch": _means(params, folds, kept),
        "last_epoch": _means(params, folds, last),
        "folds": [
            {
                "fold": fold.number,
                "train_rows": fold.train_rows,
                "held_out_rows": fold.held_out_rows,
                "kept_epoch": asdict(best),
                "last_epoch": asdict(end),
            }
            for fold, best, end in zip(folds, kept, last, strict=True)
        ],
    }


def _means(params: Params, folds: list[Fold], epochs: list[Epoch]) -> dict[str, dict[str, float]]:
    """Return mean, spread and interval of each score over one epoch of each fold."""
    ratio = sum(fold.held_out_rows / fold.train_rows for fold in folds) / len(folds)
    confidence = params.evaluate.bootstrap.confidence
    return {
        name: summarize([epoch.score(name) for epoch in epochs], ratio, confidence, inf if name == "loss" else 1.0)
        for name in SCORES
    }


def _table(report: dict[str, Any]) -> Table:
    names = {"accuracy": "accuracy", "macro_f1": "macro-F1", "loss": "loss"}
    table = Table(title=f"Cross-validation, {len(report['folds'])} folds", title_justify="left")
    for name in ("fold", "train", "held out", "epoch", *names.values()):
        table.add_column(name, justify="left" if name == "fold" else "right")
    for fold in report["folds"]:
        kept = fold["kept_epoch"]
        cells = [f"{fold['train_rows']:,}", f"{fold['held_out_rows']:,}", f"{kept['epoch']:g}"]
        table.add_row(str(fold["fold"]), *cells, *(f"{kept[name]:.4f}" for name in names))
    table.add_section()
    confidence = f"{report['confidence']:.0%}"
    for title, part in {"mean": "mean", "sd": "sd", f"{confidence} from": "low", f"{confidence} to": "high"}.items():
        cells = [f"{report['kept_epoch'][name][part]:.4f}" for name in names]
        table.add_row(title, "", "", "kept", *cells, style="bold" if part == "mean" else "")
    table.add_row("mean", "", "", "last", *(f"{report['last_epoch'][name]['mean']:.4f}" for name in names))
    return table


def train_final(console: Console) -> int:
    """Set params to train on train and validation, and run the pipeline; return its exit code."""
    before = read_text()
    after = patched(before, FINAL)
    write_params(after)
    console.print(
        Text("\n".join(["a final model from train and validation; params.yaml:", *difference(before, after)]))
    )
    return run_pipeline()


def run_pipeline() -> int:
    """Bring all stages up to date; return DVC's exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages are started as `python`
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
    return subprocess.run(command, env={**os.environ, "PATH": path}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
