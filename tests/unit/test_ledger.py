"""The account of rows adds up, and no table is written against its contract."""

from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import AttuneError
from stages.common.ledger import Ledger
from stages.common.schemas import CleanRecords, RawRecords
from tests.unit.small_records import make_records


def test_each_rejected_row_stands_in_the_account_with_stage_rule_and_reason() -> None:
    records = make_records([{"text": "a"}, {"text": "keep me"}, {"text": "no"}])
    ledger = Ledger("clean", records.height)
    short = pl.when(pl.col("text").str.len_chars() < 3).then(pl.lit("short"))
    kept = ledger.apply("short_texts", lambda _: short, records)
    kept = ledger.apply("none", lambda rows: pl.Series([None] * rows.height, dtype=pl.String), kept)
    assert kept.equals(records[1:2])
    row = {"id": "row000002", "stage": "clean", "rule": "short_texts", "reason": "short", "text": "no"}
    assert row.items() < ledger.rejected.row(1, named=True).items()
    account = ledger.close(kept.height)
    assert account["rejected_by_rule"] == {"short_texts": 2, "none": 0}
    assert (account["rows_in"], account["rows_kept"], account["rows_rejected"]) == (3, 1, 2)


def test_rows_lost_between_the_rules_keep_the_account_from_closing() -> None:
    with pytest.raises(RuntimeError, match="2 rows in, 1 kept, 0 rejected"):
        Ledger("clean", 2).close(1)


# ── contracts of tables ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_is_read_back_as_it_was_written_and_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    records = make_records([{"text": "naïve 漢字 🎈", "group": "g"}, {"text": None, "label": None}] * 200)
    records = records.with_columns(id=pl.format("row {}", pl.int_range(pl.len())), extra_column=pl.lit("x"))
    for name in ("deep/one", "deep/two"):
        assert RawRecords.write(records, tmp_path / name).columns == RawRecords.columns()
    assert RawRecords.read(tmp_path / "deep/one").equals(records.drop("extra_column"))
    assert (tmp_path / "deep/one").read_bytes() == (tmp_path / "deep/two").read_bytes()


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("id", pl.lit("same"), "column id: field_uniqueness: 2 failing"),
        ("text", pl.lit(""), "column text: str_length"),
        ("text", pl.lit(None, pl.String), "column text: not_nullable: 2 failing"),
        ("label", pl.lit(1), "column label: dtype"),
    ],
)
def test_a_row_against_the_contract_is_never_written_and_no_text_is_quoted(
    tmp_path: Path, column: str, value: pl.Expr, expected: str
) -> None:
    rows = make_records([{"text": "a secret"}, {"text": "two"}]).with_columns(fold=pl.lit(None, pl.Int16))
    with pytest.raises(AttuneError, match=r"train.parquet would break its contract") as raised:
        CleanRecords.write(rows.with_columns(value.alias(column)), tmp_path / "train.parquet")
    assert expected in str(raised.value)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "train.parquet").exists()
