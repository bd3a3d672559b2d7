"""Nothing disappears in silence: rows in = rows kept + rows rejected, or the stage does not finish."""

from collections.abc import Callable

import numpy as np
import polars as pl

from stages.common.schemas import Rejected

MASK = 2**64 - 1


class Ledger:
    """Account of the rows that a stage takes in, keeps and rejects."""

    def __init__(self, stage: str, records: pl.DataFrame) -> None:
        self.stage = stage
        self.rows_in = records.height
        self.rejected = Rejected.empty()
        self.by_rule: dict[str, int] = {}

    def apply(
        self, step: Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]], records: pl.DataFrame
    ) -> pl.DataFrame:
        """Run a step that parts records into kept and rejected rows; the step's name is the rule's.

        The rejected rows need a column `reason`.

        Raises:
            RuntimeError: if the step lost, invented or exchanged a row.
        """
        kept, out = step(records)
        rule = getattr(step, "rule", step.__name__)
        if kept.height + out.height != records.height or (_sum(kept) + _sum(out)) & MASK != _sum(records):
            raise RuntimeError(f"{rule}: {records.height} rows in, {kept.height} kept and {out.height} rejected")
        self.reject(rule, out)
        return kept

    def reject(self, rule: str, out: pl.DataFrame) -> None:
        """Note rows that a rule keeps out; they need a column `reason`."""
        self.by_rule[rule] = out.height
        self.rejected = pl.concat([self.rejected, Rejected.of(out, self.stage, rule, pl.col("reason"))])

    def close(self, kept: int) -> dict[str, object]:
        """Return the account, ready for the report.

        Raises:
            RuntimeError: if it does not add up.
        """
        if kept + self.rejected.height != self.rows_in:
            raise RuntimeError(f"{self.stage}: {self.rows_in} rows in, {kept} kept, {self.rejected.height} rejected")
        return {
            "rows_in": self.rows_in,
            "rows_kept": kept,
            "rows_rejected": self.rejected.height,
            "rejected_by_rule": self.by_rule,
        }


def _sum(rows: pl.DataFrame) -> int:
    """Return the sum of the ids' hashes, modulo 2^64: it tells two sets of ids apart without sorting them."""
    return int(np.add.reduce(rows["id"].hash().to_numpy(), dtype=np.uint64))
