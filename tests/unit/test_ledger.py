"""The account of rows: a step that loses or invents one cannot finish, and no table is written against its contract."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages.common.errors import AttuneError
from stages.common.ledger import Ledger
from stages.common.schemas import CleanRecords, RawRecords, Rejected

Records = Any


def short_texts(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    short = pl.col("text").str.len_chars() < 3
    return records.filter(~short), records.filter(short).with_columns(reason=pl.lit("short"))


def test_each_rejected_row_stands_in_the_ledger_with_stage_rule_and_reason(records_of: Records) -> None:
    records = records_of([{"text": "long enough"}, {"text": "no"}])
    ledger = Ledger("clean", records)
    assert ledger.apply(short_texts, records)["text"].to_list() == ["long enough"]
    (row,) = ledger.rejected.to_dicts()
    assert row == {
        "id": "row000001",
        "stage": "clean",
        "rule": "short_texts",
        "reason": "short",
        "text": "no",
        "label": "positive",
        "source": "tests",
        "extra": None,
    }


def test_the_account_adds_up_over_several_rules(records_of: Records) -> None:
    records = records_of([{"text": "a"}, {"text": "bb"}, {"text": "keep me"}])
    ledger = Ledger("clean", records)
    kept = ledger.apply(short_texts, records)

    def none(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return rows, rows.clear().with_columns(reason=pl.lit(""))

    kept = ledger.apply(none, kept)
    assert ledger.close(kept.height) == {
        "rows_in": 3,
        "rows_kept": 1,
        "rows_rejected": 2,
        "rejected_by_rule": {"short_texts": 2, "none": 0},
    }


def test_a_rule_that_loses_a_row_stops_the_stage(records_of: Records) -> None:
    records = records_of([{"text": "one"}, {"text": "two"}])

    def careless(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return rows.head(1), rows.clear().with_columns(reason=pl.lit(""))

    with pytest.raises(RuntimeError, match="careless: 2 rows in, 1 kept and 0 rejected"):
        Ledger("clean", records).apply(careless, records)


def test_a_rule_that_invents_a_row_stops_the_stage(records_of: Records) -> None:
    records = records_of([{"text": "one"}])

    def inventive(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return pl.concat([rows, rows]), rows.clear().with_columns(reason=pl.lit(""))

    with pytest.raises(RuntimeError, match="inventive"):
        Ledger("clean", records).apply(inventive, records)


def test_a_rule_that_swaps_one_row_for_another_stops_the_stage(records_of: Records) -> None:
    records = records_of([{"text": "one"}, {"text": "two"}])

    def swapping(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return rows.head(1), rows.head(1).with_columns(reason=pl.lit(""))

    with pytest.raises(RuntimeError, match="swapping"):
        Ledger("clean", records).apply(swapping, records)


def test_rows_lost_between_the_rules_keep_the_account_from_closing(records_of: Records) -> None:
    records = records_of([{"text": "one"}, {"text": "two"}])
    with pytest.raises(RuntimeError, match="2 rows in, 1 kept, 0 rejected"):
        Ledger("clean", records).close(1)


# ── contracts of tables ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_is_read_back_as_it_was_written(records_of: Records, tmp_path: Path) -> None:
    records = records_of([{"text": "naïve 漢字 🎈", "group": "g"}, {"text": None, "label": None}])
    RawRecords.write(records, tmp_path / "deep" / "records.parquet")
    assert RawRecords.read(tmp_path / "deep" / "records.parquet").equals(records)


def test_the_same_rows_give_the_same_bytes(records_of: Records, tmp_path: Path) -> None:
    records = records_of([{"text": f"text {at}"} for at in range(500)])
    for name in ("one", "two"):
        RawRecords.write(records, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": pl.lit("same")}, "column id: field_uniqueness: 2 failing"),
        ({"text": pl.lit("")}, "column text: str_length"),
        ({"text": pl.lit(None, pl.String)}, "column text: not_nullable: 2 failing"),
        ({"label": pl.lit("")}, "column label: str_length"),
        ({"label": pl.lit(1)}, "column label: dtype"),
    ],
)
def test_a_row_against_the_contract_is_never_written(
    records_of: Records, tmp_path: Path, change: dict[str, pl.Expr], said: str
) -> None:
    rows = records_of([{"text": "one"}, {"text": "two"}]).with_columns(fold=pl.lit(None, pl.Int16), **change)
    with pytest.raises(AttuneError, match=r"train.parquet would break its contract") as raised:
        CleanRecords.write(rows, tmp_path / "train.parquet")
    assert said in str(raised.value)
    assert not (tmp_path / "train.parquet").exists()


def test_a_missing_column_is_a_broken_contract(records_of: Records, tmp_path: Path) -> None:
    rows = records_of([{"text": "one"}]).with_columns(fold=pl.lit(None, pl.Int16))
    with pytest.raises(AttuneError, match="column_in_dataframe"):
        CleanRecords.write(rows.drop("label"), tmp_path / "train.parquet")


def test_columns_outside_the_contract_are_not_written(records_of: Records, tmp_path: Path) -> None:
    rows = records_of([{"text": "one"}]).with_columns(fold=pl.lit(None, pl.Int16), secret=pl.lit("x"))
    assert CleanRecords.write(rows, tmp_path / "train.parquet").columns == CleanRecords.columns()
    assert pl.read_parquet(tmp_path / "train.parquet").columns == CleanRecords.columns()


def test_a_message_about_a_contract_shows_no_text_of_the_data(records_of: Records, tmp_path: Path) -> None:
    rows = records_of([{"text": "a secret sentence", "label": ""}] * 3)
    with pytest.raises(AttuneError) as raised:
        CleanRecords.write(rows.with_columns(id=pl.lit("same")), tmp_path / "train.parquet")
    assert "secret" not in str(raised.value)


def test_an_empty_table_of_rejected_rows_has_the_columns_of_a_full_one() -> None:
    assert Rejected.empty().columns == ["id", "stage", "rule", "reason", "text", "label", "source", "extra"]
    assert set(Rejected.empty().dtypes) == {pl.String}
