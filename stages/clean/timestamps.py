"""When a row was made, read from the text that its source gives.

ISO 8601 (a year, a month, a day or a time, with or without a zone), or Unix time in seconds or milliseconds. A time
without a zone counts as UTC, also beside others that have one. Other digits that may be a date with a time of day
(YYYYMMDDHH and on) or a month (YYYYMM) are not guessed at.
"""

import re
from datetime import UTC, datetime

import polars as pl

# Years, months and days alone count from their beginning. 2024-05-03, 2024-05-03T12:30:15.25+02:00, 20240503T123015Z
ISO = re.compile(r"[0-9]{4}(-[0-9]{2}|-?[0-9]{2}-?[0-9]{2}(?P<clock>[T ][0-9:.,]+ ?(?P<zone>Z|UTC|[+-][0-9:]+)?)?)?")
UNIX = re.compile(r"(?P<seconds>[0-9]{9,11}(\.[0-9]{1,9})?)|(?P<milliseconds>[0-9]{13})")
# A date with an hour, or seconds: of 2030 and later in the one reading, of 1900 to 2099 in the other.
TEN_DIGITS = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])")


def read_times(texts: pl.Series) -> pl.DataFrame:
    """Read the time of each text.

    Returns:
        time: Datetime in microseconds of UTC, null where the text is missing or cannot be read;
        no_zone: whether it names a time of day without a zone.
    """
    distinct = texts.drop_nulls().unique()
    read = [_read(text.strip().upper()) for text in distinct]
    known = pl.DataFrame({"text": distinct}, schema={"text": pl.String}).with_columns(
        time=pl.Series([time for time, _ in read], dtype=pl.Datetime("us")),
        no_zone=pl.Series([no_zone for _, no_zone in read], dtype=pl.Boolean),
    )
    found = texts.to_frame("text").join(known, on="text", how="left", maintain_order="left")
    return found.select("time", pl.col("no_zone").fill_null(False))


def unreadable_timestamp(records: pl.DataFrame) -> pl.Series:
    """The time is missing or cannot be read; a row with an official split needs none."""
    out = read_times(records["timestamp"])["time"].is_null() & records["split"].is_null()
    missing = pl.col("timestamp").str.strip_chars().fill_null("") == ""
    unread = pl.format("the timestamp {} is neither ISO 8601 nor Unix time", pl.col("timestamp").str.slice(0, 40))
    reason = pl.when(missing).then(pl.lit("there is no timestamp")).otherwise(unread)
    return records.select(pl.when(out).then(reason)).to_series()


def _read(text: str) -> tuple[datetime | None, bool]:
    """Return the time of one text, stripped and in capitals, and whether it lacks the zone it should have."""
    try:
        if (unix := UNIX.fullmatch(text)) and not TEN_DIGITS.fullmatch(text):
            whole, _, fraction = (unix["seconds"] or f"{text[:-3]}.{text[-3:]}").partition(".")
            time = datetime.fromtimestamp(int(whole), UTC).replace(microsecond=int(fraction[:6].ljust(6, "0")))
        elif iso := ISO.fullmatch(text):
            whole = f"{text}-01-01"[:10] if len(text) < 8 else re.sub(" (?=[Z+-])", "", text.replace("UTC", "Z"))
            time = datetime.fromisoformat(whole)
            if iso["clock"] and not iso["zone"]:
                return time, True
            time = time.astimezone(UTC) if iso["zone"] else time
        else:
            return None, False
    except (ValueError, OverflowError):
        return None, False
    return time.replace(tzinfo=None), False
