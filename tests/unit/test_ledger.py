"""The account of rows adds up, and no table is written against its contract."""

from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import AttuneError
from stages.common.pipeline.validation import Ledger
from stages.common.schemas import CleanRecords, RawRecords
from tests.unit.small_records import clean_rows, make_records


def test_each_rejected_row_stands_in_the_account_with_stage_rule_and_reason() -> None:
    records = make_records([{"text": "a"}, {"text": "keep me"}, {"text": "no"}])
    ledger = Ledger("clean", records.height)
    short = pl.when(pl.col("text").str.len_chars() < 3).then(pl.lit("short"))
    kept = ledger.apply("short_texts", lambda _: short, records)
    kept = ledger.apply("none", lambda rows: pl.Series([None] * rows.height, dtype=pl.String), kept)
    assert kept.equals(records[1:2])
    row = {"id": "row000002", "stage": "clean", "rule": "short_texts", "reason": "short", "text": "no"}
    assert row.items() < ledger.rejected.row(1, named=True).items()
    counts = {"rows_in": 3, "rows_kept": 1, "rows_rejected": 2}
    assert ledger.close(kept.height) == {**counts, "rejected_by_rule": {"short_texts": 2, "none": 0}}
    with pytest.raises(RuntimeError, match="3 rows in, 0 kept, 2 rejected"):
        ledger.close(0)


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
        ("text", pl.lit(None, pl.String), "column text: not_nullable: 2 failing"),
        ("label", pl.lit(1), "column label: dtype"),
    ],
)
def test_a_row_against_the_contract_is_never_written_and_no_text_is_quoted(
    tmp_path: Path, column: str, value: pl.Expr, expected: str
) -> None:
    rows = clean_rows([{"text": "a secret"}, {"text": "two"}])
    with pytest.raises(AttuneError, match=r"train.parquet would break its contract") as raised:
        CleanRecords.write(rows.with_columns(value.alias(column)), tmp_path / "train.parquet")
    assert expected in str(raised.value) and "secret" not in str(raised.value)
    assert not (tmp_path / "train.parquet").exists()
