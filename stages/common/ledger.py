"""No row disappears unnoticed: rows in = rows kept + rows rejected, or the stage fails."""

from collections.abc import Callable

import polars as pl

from stages.common.schemas import Rejected

# From a table to why each of its rows goes: a String column, null where the row stays.
Rule = Callable[[pl.DataFrame], pl.Expr | pl.Series]


class Ledger:
    """Account of the rows that a stage takes in, keeps and rejects."""

    def __init__(self, stage: str, rows_in: int) -> None:
        self.stage = stage
        self.rows_in = rows_in
        self.rejected = Rejected.empty()
        self.by_rule: dict[str, int] = {}

    def apply(self, name: str, rule: Rule, records: pl.DataFrame) -> pl.DataFrame:
        """Return the rows for which the rule gives no reason, in their order; the others are recorded with it.

        Rows are removed only here, so that no rule can lose, invent or exchange one.
        """
        marked = records.with_columns(reason=rule(records))
        self.reject(name, marked.drop_nulls("reason"))
        return marked.filter(pl.col("reason").is_null()).drop("reason")

    def reject(self, rule: str, out: pl.DataFrame) -> None:
        """Record rows that a rule rejects; they need a column `reason`."""
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
