"""Times as sources write them: read where they are clear, rejected with a reason where they are not."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.timestamps import read_times, unreadable_timestamp
from tests.unit.small_records import make_records


def time_of(text: str | None) -> datetime | None:
    return read_times(pl.Series([text], dtype=pl.String))["time"][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019", "2019-01-01"),
        ("2019-05", "2019-05-01"),
        ("20190503", "2019-05-03"),
        (" 2019-05-03 ", "2019-05-03"),
        ("2019-05-03T12", "2019-05-03T12:00"),
        ("2019-05-03t12:30:15z", "2019-05-03T12:30:15"),
        ("20190503T123015Z", "2019-05-03T12:30:15"),
        ("2019-05-03T12:30:15.123456789+02:00", "2019-05-03T10:30:15.123456"),
        ("2019-05-03T12:30:15,5-0530", "2019-05-03T18:00:15.500000"),
        ("2019-05-03 12:30:00 UTC", "2019-05-03T12:30"),
        ("2019-12-31T23:30 -01", "2020-01-01T00:30"),
        ("1556886615.25", "2019-05-03T12:30:15.250000"),
        ("1556886615250", "2019-05-03T12:30:15.250000"),
        ("2013200000", "2033-10-17T22:13:20"),  # month 32: no date
    ],
)
def test_a_clear_time_is_read_as_utc(text: str, expected: str) -> None:
    assert time_of(text) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "   ",
        "03/05/2019",  # the third of May, or the fifth of March
        "201905",  # a month, or a day
        "2019-5-3",
        "2019-02-30",
        "2019-05-03T25:00",
        "2019-05-03T12:30+99:00",
        "2019-05-03T12:30 CET",  # three letters name several zones
        "٢٠١٩",
        "2019-05-03\n2019-05-04",
        "20240503123015",  # Unix milliseconds of the year 2611, or a date with its time of day
        "202405031230155",
        "2024050312",
        "9999-12-31T23:59:59-18:00",  # the year 10000
    ],
)
def test_what_is_unclear_is_not_guessed(text: str | None) -> None:
    assert time_of(text) is None


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.none() | st.integers(-17 * 60, 17 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_whatever_python_writes_in_iso_8601_is_read_as_python_reads_it(moment: datetime, zone: timezone | None) -> None:
    written = moment.replace(tzinfo=zone)
    expected = written if zone is None else written.astimezone(UTC).replace(tzinfo=None)
    assert time_of(written.isoformat()) == time_of(written.isoformat(" ")) == expected


@given(st.lists(st.none() | st.text(max_size=30) | st.from_regex(r"[0-9:TZ.+-]{0,25}", fullmatch=True), max_size=20))
def test_no_text_at_all_breaks_the_reading(texts: list[str | None]) -> None:
    read = read_times(pl.Series(texts, dtype=pl.String))
    assert read.height == len(texts)
    assert read.schema == {"time": pl.Datetime("us"), "no_zone": pl.Boolean}
    assert read["no_zone"].null_count() == 0


def test_times_of_day_without_a_zone_are_counted() -> None:
    texts = ["2019-05-03 12:30", "2019-05-03 12:30Z", "2019-05-03", "1556886615", "2019-05-03 99:30", None]
    assert read_times(pl.Series(texts))["no_zone"].to_list() == [True, False, False, False, False, False]


def test_rows_without_a_readable_time_are_rejected_with_the_reason() -> None:
    records = make_records(
        [{"timestamp": "2019"}, {"timestamp": None}, {"timestamp": " "}, {"timestamp": "soon" * 100}, {"split": "test"}]
    )
    assert unreadable_timestamp(records).to_list() == [
        None,
        "there is no timestamp",
        "there is no timestamp",
        f"the timestamp {'soon' * 10} is neither ISO 8601 nor Unix time",
        None,  # an official row needs no time
    ]
