"""When a row was made, read from the text that its source gives.

ISO 8601 (a year, a month, a day or a time, with or without a zone), or Unix time in seconds or milliseconds. A time
without a zone counts as UTC, also beside others that have one. Digits alone that may be a date with a time of day
(YYYYMMDDHH and on) are not guessed at: 12 and 14 are no time, 10 are none where they read as such a date.
"""

import polars as pl

# Years, months and days alone count from their beginning. 2024-05-03, 2024-05-03T12:30:15.25+02:00, 20240503T123015Z
ISO = (
    r"^(?<year>[0-9]{4})(?:-?(?<month>[0-9]{2})(?:-?(?<day>[0-9]{2})"
    r"(?:[Tt ](?<hour>[0-9]{2})(?::?(?<minute>[0-9]{2})(?::?(?<second>[0-9]{2})(?:[.,](?<fraction>[0-9]{1,9}))?)?)?"
    r" ?(?<zone>[Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)?)?)?$"
)
UNIX = r"^([0-9]{9,11})(?:\.([0-9]{1,9}))?$"  # seconds since 1970, from 1973 on: eight digits are a date
UNIX_MILLISECONDS = r"^[0-9]{13}$"
# A date with an hour, or seconds: of 2030 and later in the one reading, of 1900 to 2099 in the other.
TEN_DIGITS = r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])$"
SIX_DIGITS = r"^[0-9]{6}$"
LAST = pl.datetime(
    9999, 12, 31, 23, 59, 59, 999_999, time_unit="us"
)  # that Python's datetime holds; the first is year 1
FIRST = pl.datetime(1, 1, 1, time_unit="us")


def read_times(texts: pl.Series) -> pl.DataFrame:
    """Read the time of each text.

    Returns:
        time: Datetime in microseconds of UTC, null where the text is missing or cannot be read;
        no_zone: whether it tells a time of day without a zone.
    """
    distinct = pl.DataFrame({"text": texts.unique()}).with_columns(stripped=pl.col("text").str.strip_chars())
    parts = distinct.select("text", "stripped", pl.col("stripped").str.extract_groups(ISO).alias("iso")).unnest("iso")
    known = parts.select(
        "text",
        time=_in_range(pl.coalesce(_unix(pl.col("stripped")), _iso())),
        no_zone=pl.col("hour").is_not_null() & pl.col("zone").is_null(),
    )
    found = texts.to_frame("text").join(known, on="text", how="left", maintain_order="left", nulls_equal=True)
    return found.select("time", no_zone=pl.col("no_zone") & pl.col("time").is_not_null())


def unreadable_timestamp(records: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The time is missing or cannot be read; a row with an official split needs none."""
    shown = pl.col("timestamp").str.slice(0, 40)
    reason = pl.when(pl.col("timestamp").str.strip_chars().fill_null("") == "").then(pl.lit("there is no timestamp"))
    out = read_times(records["timestamp"])["time"].is_null() & records["split"].is_null()
    rejected = records.filter(out).with_columns(
        reason=reason.otherwise(pl.format("the timestamp {} is neither ISO 8601 nor Unix time", shown))
    )
    return records.filter(~out), rejected


def _in_range(time: pl.Expr) -> pl.Expr:
    return pl.when(time.is_between(FIRST, LAST)).then(time)


def _unix(text: pl.Expr) -> pl.Expr:
    number = pl.when(~text.str.contains(TEN_DIGITS)).then(text)
    seconds = number.str.extract(UNIX, 1).cast(pl.Int64) * 1_000_000
    fraction = text.str.extract(UNIX, 2).fill_null("").str.pad_end(6, "0").str.head(6).cast(pl.Int64)
    milliseconds = pl.when(text.str.contains(UNIX_MILLISECONDS)).then(text).cast(pl.Int64) * 1_000
    return pl.coalesce(seconds + fraction, milliseconds).cast(pl.Datetime("us"))


def _iso() -> pl.Expr:
    """Put the parts that ISO names together; the text is in `stripped`."""

    def part(name: str, missing: str) -> pl.Expr:
        return pl.col(name).fill_null(missing)

    date = pl.concat_str(part("year", ""), part("month", "01"), part("day", "01"), separator="-")
    clock = pl.concat_str(part("hour", "00"), part("minute", "00"), part("second", "00"), separator=":")
    fraction = part("fraction", "").str.pad_end(6, "0").str.head(6)
    local = pl.concat_str(date, pl.lit("T"), clock, pl.lit("."), fraction).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.6f", time_unit="us", strict=False
    )
    zone = part("zone", "Z").str.replace(":", "", literal=True)
    digits = pl.when(zone.str.contains("^[+-]")).then(zone.str.slice(1).str.pad_end(4, "0")).otherwise(pl.lit("0000"))
    hours, minutes = digits.str.head(2).cast(pl.Int64), digits.str.tail(2).cast(pl.Int64)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    # No zone is further from UTC (java.time.ZoneOffset), a year 0000 stands for an unknown one, and six digits may be
    # a month or a date: nobody can tell.
    sound = (hours <= 18) & (minutes < 60) & (pl.col("year") != "0000") & ~pl.col("stripped").str.contains(SIX_DIGITS)
    return pl.when(sound).then(local - pl.duration(minutes=sign * (hours * 60 + minutes)))
