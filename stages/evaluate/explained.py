"""Which test rows are explained word by word: where the model is most surely wrong, and others for comparison."""

from pathlib import Path

import polars as pl

from stages.common.params.evaluate import Attributions
from stages.evaluate.draw import drawn
from stages.tasks.attribution import Attribution, Unexplainable, attributions


def explained(
    model: Path, rows: pl.DataFrame, labels: list[str], params: Attributions, seed: int
) -> tuple[list[Attribution], str]:
    """Explain the most confident errors, then a sample of the other rows.

    Args:
        model: the trained model's folder.
        rows: test records with `prediction` and `confidence`.
        labels: in the order of the model's outputs.
        params: how many rows, and how exactly.
        seed: of the sample.

    Returns:
        The attributions, and a line to tell how many there are, or why there are none.
    """
    wrong = rows.filter(pl.col("prediction") != pl.col("label"))
    errors = wrong.sort("confidence", "id", descending=[True, False]).head(params.errors)
    others = drawn(rows.join(errors, on="id", how="anti"), f"{seed} explained").head(params.sample)
    chosen = pl.concat([errors.with_columns(kind=pl.lit("error")), others.with_columns(kind=pl.lit("sample"))])
    try:
        found = attributions(model, chosen, labels, params.steps)
    except Unexplainable as reason:
        return [], f"no prediction is explained: {reason}"
    worst = max((abs(one.delta) for one in found), default=0.0)
    return found, f"{len(found)} predictions explained; the integral is off by {worst:.3f} in log-odds at most"
