"""Checks of a table against its contract, the account of kept and rejected rows, and limits above which a stage stops.

`Table.write` raises: nothing that breaks its contract is written. Here every check is counted, without a copy of the
rows that fail: two million of them cost seconds.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from stages.common.display import Mask, display, listed
from stages.common.errors import AttuneError
from stages.common.params.clean import RuleName
from stages.common.schemas import SPLITS, Rejected, Table

# From a table to why each of its rows goes: a String column, null where the row stays.
Rule = Callable[[pl.DataFrame], pl.Expr | pl.Series]
OFFENDERS = 10  # rows named per check
WIDTH = 80  # characters shown of a value
REMEDIES = {  # of the rules of ingest and clean, where one takes too many rows
    "left_out": "see where of the source, and ingest.split_names",
    "bad_target": "see that columns.label names the column of the labels, and mend its cells",
    "out_of_range": "widen ingest.range",
    "unmapped_label": "add their labels to ingest.labels",
    "not_drawn": "raise ingest.limit",
    "empty_text": "see that columns.text names the column of the texts",
    "unlabelled": "see that columns.label names the column of the labels",
    "length": "widen clean.length",
    "language": "add their language to clean.languages.keep",
    "unreadable_timestamp": "map columns.timestamp to a time, or set clean.split.by: random",
    "conflicting_labels": "give equal texts one label",
    "exact_duplicate": "see that columns.text names the column of the texts, and that the texts differ",
    "contaminated": "take the benchmark out of ingest.decontaminate_against, or these rows out of the data",
    "in_other_split": "leave these rows out of columns.split, or the questions out of one of the splits",
    "bad_messages": "see that format is that of the file, and columns.label its column (docs/chat.md)",
    "no_answer": "add what is to be answered, or take train: false out",
    "empty_turn": "write what is said there, or take the turn out",
    "role_order": "let user and assistant speak by turns, the user first",
    "tool_calls": "take calls of tools out: they are not learnt yet",
    "too_long": "raise tokenize.max_length, or set tokenize.too_long: drop_turns",
    "template_tokens": "take the marks of the template out of the texts",
    "template_refuses": "write the conversations as the base model's template wants them, or take another base",
    "template_prefix": "take a base whose template keeps earlier turns as they are",
    "untrained_end": "name the token that ends a turn as eos_token in the base's tokenizer_config.json",
    "near_duplicate": "raise clean.near_duplicates.threshold, or set its enabled: false",
}


def validation_report(
    schema: type[Table], rows: pl.DataFrame, *, name: str, mask: Mask | None = None
) -> dict[str, Any]:
    """Check every row against a contract; the same in any order of the rows.

    The rows have an `id`, and the contract's columns and types, no lists or floats among them; other columns are not
    looked at. `mask` replaces personal data in the values shown.

    Returns:
        rows, columns (dtype, nulls, distinct values), and for each check the number of rows that fail and up to ten
        of them (id and value cut to 80 characters; of repeated values the most frequent first); passed: no row does.
    """
    columns, checks = {}, []
    for column, declared in schema.to_schema().columns.items():
        values = rows[column]
        columns[column] = {
            "dtype": str(values.dtype),
            "nulls": values.null_count(),
            "distinct": values.drop_nulls().hash().n_unique(),  # of hashes: no second copy of the texts
        }
        failing = {} if declared.nullable else {"not_null": values.is_null()}
        if declared.unique:
            failing["unique"] = values.is_duplicated()
        for check in declared.checks:  # of pandera
            passing = check(values.to_frame().lazy(), column).check_output.collect().to_series()
            failing[check.error or check.name] = ~passing
        for check, fails in failing.items():
            offenders = _offenders(rows, column, fails, mask, repeated=check == "unique")
            checks.append({"column": column, "check": check, "failing": int(fails.sum()), "offenders": offenders})
    return {
        "table": name,
        "contract": schema.__name__,
        "passed": not any(entry["failing"] for entry in checks),
        "rows": rows.height,
        "columns": columns,
        "checks": checks,
    }


def _offenders(
    rows: pl.DataFrame, column: str, failing: pl.Series, mask: Mask | None, *, repeated: bool
) -> list[dict[str, Any]]:
    """Return the first of the rows that fail, by id; of repeated values the most frequent, each once with its count."""
    if not failing.any():
        return []
    if repeated:
        counts = rows[column].filter(failing).rename("value").value_counts()
        commonest = counts.sort("count", "value", descending=[True, False]).head(OFFENDERS)
        return [{"value": display(str(value), WIDTH, mask), "times": times} for value, times in commonest.iter_rows()]
    first = rows["id"].filter(failing).bottom_k(OFFENDERS).implode()
    offenders = rows.select("id", value=pl.col(column).cast(pl.String)).filter(
        failing & rows["id"].is_in(first, nulls_equal=True)
    )
    return [
        {"id": display(str(row_id), WIDTH, None), "value": None if value is None else display(value, WIDTH, mask)}
        for row_id, value in offenders.sort("id", "value").head(OFFENDERS).iter_rows()
    ]


def check_label_counts(
    labels: pl.Series, names: Mapping[str, int], when: str, rejected: pl.LazyFrame, least: int = len(SPLITS)
) -> None:
    """Check that there is something to learn, and enough of it; the message names the rules that took the other rows.

    `names` are the rows by the name of a class in their label, if the task has such; of each, `least` are needed.
    `when` is for the message, such as "after cleaning"; the others are in `rejected` (schema Rejected). An AttuneError
    if there are fewer than two different labels, or too few rows with a name.
    """
    different = labels.unique().head(2).to_list()
    if different and not names and len(labels) < len(SPLITS):  # their labels have no names, as conversations
        what = f"{when} there {'is 1 row' if len(labels) == 1 else f'are {len(labels)} rows'}, for three splits"
        raise AttuneError(what, most_rejecting(rejected) or "add rows")
    if len(different) < 2:
        found = f"only the label '{display(different[0], 60)}'" if different else "not one labelled row"
        raise AttuneError(
            f"{when} there is {found}, and a classifier needs two labels or more",
            most_rejecting(rejected.filter(~pl.col("label").is_in(different).fill_null(False)))
            or "check columns.label and ingest.labels",
        )
    rare = {name: count for name, count in names.items() if count < least}
    if rare:
        listing = listed([f"'{display(name, 60)}' ({count})" for name, count in rare.items()], 5)
        of_rare = most_rejecting(rejected.filter(pl.col("label").is_in([*rare])), sum(rare.values()))
        few = f"fewer than {least} rows (clean.min_label_rows)"
        few = "too few rows for three splits" if least <= len(SPLITS) else few
        fix = of_rare or "add rows, or leave the label out by listing only the others in ingest.labels"
        raise AttuneError(f"{when} there are {few} under the label {listing}", fix)


def most_rejecting(rejected: pl.LazyFrame, kept: int = 0) -> str:
    """Say which rules took how many rows, the first reason, and what to change; nothing if they took few.

    `rejected` (schema Rejected) are the rows that are missing now; so many of the same kind are `kept`.
    """
    counts = rejected.group_by("rule").agg(pl.len(), pl.col("reason").min()).collect()
    rules = [*counts.sort("len", "rule", descending=[True, False]).iter_rows()]
    taken = sum(count for _, count, _ in rules)
    if not taken or 2 * taken < kept:
        return ""
    (rule, count, reason), others = rules[0], [f", {name} {number:,}" for name, number, _ in rules[1:4]]
    first = f"{rule} took {count:,} of {kept + taken:,} rows ({display(reason, 100)}){''.join(others)}"
    return f"{first}: {REMEDIES[rule]}"


def enforce(stop_above: Mapping[RuleName, float], rejected: pl.DataFrame, rows_in: int) -> None:
    """Stop when a rule, or `any` of them together, rejects more than its share of the rows that came in.

    An AttuneError names each rule that is over its limit, and the first rows that it rejected.
    """
    over = []
    for rule, limit in sorted(stop_above.items()):
        of_rule = rejected if rule == "any" else rejected.filter(rule=rule)
        if rows_in and (share := of_rule.height / rows_in) > limit:
            whose = "all rules together reject" if rule == "any" else f"the rule {rule} rejects"
            over.append(
                f"{whose} {of_rule.height:,} of {rows_in:,} rows ({share:.1%}), "
                f"more than clean.stop_above allows ({limit:.1%}), such as"
            )
            examples = of_rule.bottom_k(5, by=["id", "rule"]).sort("id", "rule")
            over += [
                f"  {display(id, WIDTH, None)} ({display(source, WIDTH, None)}): {display(reason, 2 * WIDTH)}"
                for id, source, reason in examples.select("id", "source", "reason").iter_rows()
            ]
    if over:
        raise AttuneError(
            "\n  ".join(over),
            "mend the source, or the params of the rule; to see all of these rows, take the limit out of "
            "clean.stop_above, run again, and open reports/data.html or data/clean/rejected.parquet",
        )


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
        """Return the account, ready for the report; a RuntimeError if it does not add up."""
        if kept + self.rejected.height != self.rows_in:
            raise RuntimeError(f"{self.stage}: {self.rows_in} rows in, {kept} kept, {self.rejected.height} rejected")
        return {
            "rows_in": self.rows_in,
            "rows_kept": kept,
            "rows_rejected": self.rejected.height,
            "rejected_by_rule": self.by_rule,
        }
