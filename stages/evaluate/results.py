"""What evaluate leaves for DVC: the headline of `reports/metrics.json`, and the tables of its plots."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from stages.common.params.evaluate import EvaluateParams
from stages.common.params.tasks import TaskSpec
from stages.common.pipeline.stage import Run

DIGITS = 6
ENDS = ("", "_low", "_high")
PLOTS: dict[str, tuple[str, ...]] = {  # the columns of each table
    "confusion": ("actual", "predicted"),
    "roc": ("label", "fpr", "tpr"),
    "precision_recall": ("label", "recall", "precision"),
    "reliability": ("label", "bin", "confidence", "share", "rows"),
    "scatter": ("actual", "predicted", "rows"),
}


def headline(scores: Mapping[str, Any], spec: TaskSpec) -> dict[str, float]:
    """Return the numbers of `reports/metrics.json`, at most 15; what there is none of is left out.

    Of `scores`, the content of `reports/scores.json`, it has the task's first two, and what the first gains over the
    best baseline.
    """
    main = spec.main.name
    gains = [[baseline[f"{main}_gain{end}"] for end in ENDS] for baseline in scores["baselines"].values()]
    tests, calibration = scores["behaviour"].values(), scores.get("calibration", {})
    cases = sum(test["cases"] for test in tests)
    answered = scores.get("thresholds") or {}
    numbers = {
        "rows": scores["rows"],
        **{f"{score.name}{end}": scores[f"{score.name}{end}"] for score in spec.headline for end in ENDS},
        **dict(zip([f"gain{end}" for end in ENDS], min(gains, default=[]), strict=False)),
        "ece": calibration.get("ece"),
        "log_loss": scores.get("log_loss"),
        "coverage": calibration.get("coverage", answered.get("coverage")),
        "behaviour_passed": round(sum(test["passed"] for test in tests) / cases, DIGITS) if cases else None,
        "parameters": scores["model"]["parameters"],
    }
    return {name: number for name, number in numbers.items() if number is not None}


def write_plots(run: Run[EvaluateParams], tables: Mapping[str, pl.DataFrame]) -> None:
    """Write the tables that DVC draws; of one that the task does not have, the header alone."""
    for name, columns in PLOTS.items():
        empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        tables.get(name, empty).write_csv(run.output(f"reports/plots/{name}.csv"))
    tables["slices"].write_csv(run.output("reports/plots/slices.csv"))
