"""`python -m flows.crossvalidate`: train once per fold, on the other folds, and give mean and spread of the scores.

The folds are those that `clean.split.folds` assigns. A fold that is finished is not trained again. It is a plain
program for the reasons given in flows/tune.py.
"""

import argparse
import sys
from math import inf, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from flows.command import program
from flows.search.params_patch import rewrite
from flows.search.trials import Trial, names_of, prepare_trial, train_trial
from stages.common.digests import sha256_value
from stages.common.errors import AttuneError
from stages.common.params import PARAMS_FILE, Params, check_params, read_yaml
from stages.common.pipeline.stage import WORK, alone, write_json
from stages.common.schemas import AugmentedRecords, CleanRecords, TokenizedRecords
from stages.tracking.live import NestedRuns

REPORT = Path("reports/crossvalidation.json")
TOKENIZED = "data/tokenized/{}.parquet"
FOLDS = WORK / "folds"
FINAL = {"finetune.train_on": "train_and_validation", "finetune.early_stopping_patience": None}


@program("the cross-validation was interrupted; the same command goes on with it")
def main(arguments: list[str] | None = None) -> None:
    """Cross-validate; then set params for a final model, if asked."""
    what = "Train once per fold, on the rows of the others."
    parser = argparse.ArgumentParser(prog="python -m flows.crossvalidate", description=what)
    parser.add_argument("--final", action="store_true", help="then set params to train on train and validation")
    cross_validate(final=parser.parse_args(arguments).final)


@alone("trials")
def cross_validate(*, final: bool) -> None:
    """Train and score each fold; show their mean and spread, and write the report."""
    console, data = Console(highlight=False, soft_wrap=True), read_yaml(PARAMS_FILE)
    params = check_params(data)
    rows, number = read_rows(params), params.clean.split.folds
    trials = [_prepare_fold(data, fold, rows) for fold in range(number)]
    key = sha256_value([trial.digest for trial, _ in trials])
    runs = NestedRuns(params, key[:16], f"cross-validation, {number} folds", {"attune.crossvalidation": key[:16]})
    folds: list[dict[str, Any]] = []
    for fold, (trial, sizes) in enumerate(trials):
        how = "finished before" if trial.curve.exists() else "trained"
        epochs, best = train_trial(trial, runs, f"fold {fold}")
        console.print(f"fold {fold}: {', '.join(f'{name} {best[name]:.4f}' for name in names_of(best))} ({how})")
        folds.append({"fold": fold, **sizes, "kept_epoch": best, "last_epoch": epochs[-1]})

    level, names = params.evaluate.bootstrap.confidence, names_of(folds[0]["kept_epoch"])
    ratio = mean(fold["held_out_rows"] / fold["train_rows"] for fold in folds)
    most = {name: inf if params.spec.score(name).unbounded else 1.0 for name in names}
    kept, last = (
        {name: summarize([fold[epoch][name] for fold in folds], ratio, level, most[name]) for name in names}
        for epoch in ("kept_epoch", "last_epoch")
    )
    runs.finish({f"{part}_{name}": value for name, parts in kept.items() for part, value in parts.items()})
    REPORT.parent.mkdir(exist_ok=True)
    write_json({"inputs": key, "confidence": level, "kept_epoch": kept, "last_epoch": last, "folds": folds}, REPORT)
    for name, of in kept.items():
        spread = f"{of['mean']:.4f} ± {of['sd']:.4f}, {level:.0%} from {of['low']:.4f} to {of['high']:.4f}"
        console.print(f"{name}: {spread}; at the last epoch {last[name]['mean']:.4f}")
    console.print(Text(f"the same in {REPORT}; how to read it: docs/tuning.md"))
    if final:
        lines = "\n".join(rewrite(FINAL))
        console.print(Text(f"a final model learns from train and validation; params.yaml:\n{lines}\nnow: make run"))


def read_rows(params: Params) -> pl.DataFrame:
    """Return the tokenized rows outside test, with the `fold` of each and whether it is an `original`.

    A row made by augmentation has the fold of its parent.

    Raises:
        AttuneError: if params ask for no folds, or for a training that looks at no held-out rows; if a table is
            missing, or they are not of the same data and number of folds.
    """
    folds, train_on = params.clean.split.folds, params.finetune.train_on
    if not folds:
        fix = "set it to 5 (say), then: make crossvalidate"
        raise AttuneError("params.yaml: clean.split.folds is 0: the rows have no folds", fix)
    if train_on != "train":
        what = f"params.yaml: finetune.train_on is {train_on}: it would train on the held-out fold, too"
        raise AttuneError(what, "set it to train; --final sets it back afterwards")
    augmented, validation = Path("data/augmented/train.parquet"), Path("data/clean/validation.parquet")
    tokenized = [Path(TOKENIZED.format(name)) for name in ("train", "validation")]
    if missing := [path for path in (augmented, validation, *tokenized) if not path.exists()]:
        raise AttuneError(f"{missing[0]} is missing", "make it: make crossvalidate")
    train = AugmentedRecords.read(augmented).select("id", "fold", original=pl.col("parent").is_null())
    known = pl.concat([train, CleanRecords.read(validation).select("id", "fold", original=pl.lit(True))])
    rows = pl.concat([TokenizedRecords.read(path) for path in tokenized])
    if set(rows["id"]) != set(known["id"]) or known["fold"].null_count() or known["fold"].n_unique() != folds:
        what = f"data/ was made with other params than params.yaml (clean.split.folds: {folds})"
        raise AttuneError(what, "make crossvalidate")
    return rows.join(known, on="id", how="left", maintain_order="left")


def _prepare_fold(data: Any, fold: int, rows: pl.DataFrame) -> tuple[Trial, dict[str, int]]:
    """Write the rows of a fold's training and lay out its trial; return the trial, and how many rows there are.

    A row made by augmentation is held out with its parent, which means that it is left out: nobody is tested on it.
    """
    inside = pl.col("fold") == fold
    parts = {"train": rows.filter(~inside), "validation": rows.filter(inside & pl.col("original"))}
    for name, part in parts.items():
        TokenizedRecords.write(part, FOLDS / str(fold) / f"{name}.parquet")
    trial = prepare_trial(data, {TOKENIZED.format(name): FOLDS / str(fold) / f"{name}.parquet" for name in parts})
    return trial, {"train_rows": parts["train"].height, "held_out_rows": parts["validation"].height}


def summarize(scores: list[float], ratio: float, confidence: float, most: float = inf) -> dict[str, float]:
    """Return `mean`, `sd`, `low` and `high` of the folds' scores, the interval by the corrected resampled t-test.

    The trainings of two folds have most of their rows in common, so their scores are not independent, and the plain
    standard error, sd / √k, is too small. Nadeau & Bengio (2003) put √(1/k + held out/train) · sd in its place.

    There are two scores at least; `ratio` is that of held-out to training rows. The interval ends at `most`, the
    greatest value that a score can have, and at 0, or at that below 0 if a fold is.
    """
    from scipy.stats import t

    middle, spread, least = mean(scores), stdev(scores), -most if min(scores) < 0 else 0.0
    half = float(t.ppf((1 + confidence) / 2, len(scores) - 1)) * sqrt(1 / len(scores) + ratio) * spread
    values = {"mean": middle, "sd": spread, "low": max(least, middle - half), "high": min(most, middle + half)}
    return {name: round(value, 6) for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
