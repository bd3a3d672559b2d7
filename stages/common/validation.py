"""Tables held against their contracts, told rather than raised; and the limits above which a stage stops all the same.

`Table.write` is the gate: nothing that breaks its contract is written. What is here says how a table stands to a
contract, column by column and check by check, without a copy of the rows that fail: two million of them cost seconds.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from stages.common.errors import AttuneError
from stages.common.params.clean import RuleName
from stages.common.schemas import Table
from stages.common.shown import Mask, shown

OFFENDERS = 10  # rows named per check
WIDTH = 80  # characters shown of a value


def validation_report(
    schema: type[Table], rows: pl.DataFrame, *, name: str, mask: Mask | None = None
) -> dict[str, Any]:
    """Hold every row against a contract; the same in any order of the rows.

    Args:
        schema: the contract.
        rows: what is held against it; columns that it does not name are no matter.
        name: of the table.
        mask: replaces personal data in the values shown.

    Returns:
        rows, columns (dtype, nulls, distinct values), and for each check the number of rows that fail and up to ten
        of them (id and value cut to 80 characters; of repeated values the most frequent first); passed: no row does.
    """
    columns, checks = {}, []
    for column, declared in schema.to_schema().columns.items():
        if column not in rows.columns:
            checks.append({"column": column, "check": "is_there", "failing": rows.height, "offenders": []})
            continue
        values = rows[column]
        columns[column] = {
            "dtype": str(values.dtype),
            "nulls": values.null_count(),
            "distinct": values.drop_nulls().hash().n_unique(),  # of hashes: no second copy of the texts
        }
        if not declared.dtype.check(values.dtype):
            checks.append({"column": column, "check": f"is {declared.dtype}", "failing": rows.height, "offenders": []})
            continue
        for check, failing in _failing(values, declared).items():
            offenders = _offenders(rows, column, failing, mask, repeated=check == "unique")
            checks.append({"column": column, "check": check, "failing": int(failing.sum()), "offenders": offenders})
    return {
        "table": name,
        "contract": schema.__name__,
        "passed": all(not entry["failing"] for entry in checks) and len(columns) == len(schema.columns()),
        "rows": rows.height,
        "columns": columns,
        "checks": checks,
    }


def enforce(stop_above: Mapping[RuleName, float], rejected: pl.DataFrame, rows_in: int) -> None:
    """Stop when rules reject too many rows.

    Args:
        stop_above: share of the rows by rule; `any` stands for all rules together.
        rejected: schema Rejected.
        rows_in: rows that came in.

    Raises:
        AttuneError: naming each rule that is over its limit, and the first rows that it rejected.
    """
    over = []
    for rule in sorted(stop_above):
        out = rejected if rule == "any" else rejected.filter(pl.col("rule") == rule)
        if rows_in and out.height / rows_in > stop_above[rule]:
            whose = "all rules together reject" if rule == "any" else f"the rule {rule} rejects"
            over.append(
                f"{whose} {out.height:,} of {rows_in:,} rows ({out.height / rows_in:.1%}), "
                f"more than clean.stop_above allows ({stop_above[rule]:.1%}), such as\n" + _first(out)
            )
    if over:
        raise AttuneError(
            "\n  ".join(over),
            "mend the source, or the params of the rule; to see all of these rows, take the limit out of "
            "clean.stop_above, run again, and open reports/data.html or data/clean/rejected.parquet",
        )


def _first(rejected: pl.DataFrame, most: int = 5) -> str:
    rows = rejected.bottom_k(most, by=["id", "rule"]).sort("id", "rule")
    return "\n".join(
        f"    {shown(row['id'], WIDTH)} ({shown(row['source'], WIDTH)}): {shown(row['reason'], 2 * WIDTH)}"
        for row in rows.to_dicts()
    )


def _failing(values: pl.Series, declared: Any) -> dict[str, pl.Series]:
    """Return for each check of a column, a pandera one, which values fail it."""
    failing = {}
    if not declared.nullable:
        failing["not_null"] = values.is_null() | values.is_nan() if values.dtype.is_float() else values.is_null()
    if declared.unique:
        failing["unique"] = values.is_duplicated()
    for check in declared.checks:
        told = check.error or check.name
        failing[told] = ~check(values.to_frame().lazy(), values.name).check_output.collect().to_series()
    return failing


def _offenders(
    rows: pl.DataFrame, column: str, failing: pl.Series, mask: Mask | None, *, repeated: bool
) -> list[dict[str, Any]]:
    """Return the first of the rows that fail, by id; of repeated values the most frequent, each once with its count."""
    if not failing.any():
        return []
    if repeated:
        counts = rows[column].filter(failing).rename("value").value_counts()
        commonest = counts.sort("count", "value", descending=[True, False]).head(OFFENDERS)
        return [{"value": shown(str(value), WIDTH, mask), "times": times} for value, times in commonest.iter_rows()]
    key = "id" if "id" in rows.columns else column
    first = rows[key].filter(failing).bottom_k(OFFENDERS)
    told = pl.lit(None, pl.String) if rows[column].dtype.is_nested() else pl.col(column).cast(pl.String)
    found = rows.select(id=key, value=told).filter(failing & rows[key].is_in(first.implode(), nulls_equal=True))
    return [
        {"id": shown(str(row), WIDTH), "value": None if value is None else shown(value, WIDTH, mask)}
        for row, value in found.sort("id", "value").head(OFFENDERS).iter_rows()
    ]
