"""What texts and answers looked like when a model was made, in figures small enough to travel with it.

`flows.predict` counts the same figures over new rows while it predicts them, and holds them against these. All are
counts in bins, so those of two parts of the rows add up to those of both.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl

from stages.common.serving.decision import Decision
from stages.common.texts import WORD, is_unspaced, whole_text

FILE = "profile.json"
VERSION = 1
BINS = 10  # of lengths and of confidence: deciles, as is usual for the PSI
COMMONEST = 200  # words that are counted one by one
KNOWN = 4_096  # words, about, that "new words" looks up
SAMPLE = 50_000  # training rows whose words are counted, at most
CHARACTERS = 2_000  # of a text whose words are counted
ROWS_AT_A_TIME = 5_000
DIGITS = 6

Counts = dict[str, list[int]]  # of each measure, rows or words per bin


def profile_of(train: pl.DataFrame, probabilities: np.ndarray, decision: Decision) -> dict[str, Any]:
    """Return the profile of a model: JSON-able, under 100 KB, the same in any order of the rows.

    A measure is `counts` per bin, with what tells the bins (`edges`, `words` or `labels`), and its `design` effect:
    by how much the counts vary more than those of independent draws would, because the words of one row or group have
    their theme in common (Kish 1965; the mean over the bins after Rao & Scott 1981).

    Args:
        train: CleanRecords that the model learnt from.
        probabilities: calibrated, of the validation rows, [n x k].
        decision: how they become answers.
    """
    train = train.sort("id")
    texts, unit = whole_text(train), _units(train)
    sample = _spread(train.height, SAMPLE)
    counted = _words_by_unit(texts[sample], unit[sample])
    measures: dict[str, Any] = {
        "text": {"counts": [train.height, 0]},
        "lengths": _lengths(texts, unit),
        "words": _commonest(counted),
        "new words": _known(counted),
        "labels": {"labels": decision.labels},
        "confidence": {"edges": _edges(_confidence(probabilities))},
        "abstentions": {},
    }
    profile = {
        "version": VERSION,
        "rows": train.height,
        "pairs": bool(train.height) and train["text_pair"].null_count() == 0,
        "unit": "characters" if is_unspaced(texts) else "words",
        "train_labels": dict(train["label"].value_counts().sort("label").iter_rows()),
        "measures": measures,
    }
    for name, counts in answer_counts(profile, probabilities, decision.abstains(probabilities)).items():
        measures[name]["counts"] = counts
    return profile


def text_counts(profile: Mapping[str, Any], rows: pl.DataFrame) -> Counts:
    """Count a profile's measures of texts over rows with `text` (null where there is none) and `text_pair`."""
    measures = profile["measures"]
    there = rows.filter(pl.col("text").is_not_null())
    texts = whole_text(there)
    counts = {
        "text": [there.height, rows.height - there.height],
        "lengths": _binned(texts.str.len_chars().to_numpy(), measures["lengths"]["edges"]),
        "words": [0] * (len(measures["words"]["words"]) + 1),
        "new words": [0, 0],
    }
    place = {word: at for at, word in enumerate(measures["words"]["words"])}
    one_in = measures["new words"]["one_in"]
    known = set(np.frombuffer(base64.b64decode(measures["new words"]["known"]), "<u4").tolist())
    for word, times in _words(texts).explode().drop_nulls().value_counts().iter_rows():
        counts["words"][place.get(word, len(place))] += times
        if (code := crc32(word.encode())) % one_in == 0:
            counts["new words"][code not in known] += times
    return counts


def answer_counts(profile: Mapping[str, Any], probabilities: np.ndarray, abstained: np.ndarray) -> Counts:
    """Count a profile's measures of answers.

    Args:
        profile: with `labels` and the `edges` of the confidence.
        probabilities: calibrated, [n x k].
        abstained: whether the model was not sure enough, [n] bool.
    """
    measures = profile["measures"]
    chosen = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, np.int64)
    return {
        "labels": np.bincount(chosen, minlength=len(measures["labels"]["labels"])).tolist(),
        "confidence": _binned(_confidence(probabilities), measures["confidence"]["edges"]),
        "abstentions": [int((~abstained).sum()), int(abstained.sum())],
    }


def added(parts: Iterable[Counts]) -> Counts:
    """Return the counts of all parts together."""
    whole: Counts = {}
    for part in parts:
        for name, counts in part.items():
            before = whole.get(name) or [0] * len(counts)
            whole[name] = [old + new for old, new in zip(before, counts, strict=True)]
    return whole


def _confidence(probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of the likeliest label, [n]; rounded, so that a last digit moves no row to another bin."""
    return np.asarray(probabilities.max(axis=1, initial=0.0)).round(DIGITS)


def _edges(values: np.ndarray) -> list[float]:
    """Return the values at which bins with equally many of them part: BINS - 1, or fewer where many are equal."""
    if not len(values):
        return []
    shares = np.arange(1, BINS) / BINS
    return sorted({float(edge) for edge in np.quantile(values, shares, method="inverted_cdf")})


def _binned(values: np.ndarray, edges: list[float]) -> list[int]:
    places = np.searchsorted(edges, values, side="right")
    return np.bincount(places, minlength=len(edges) + 1).tolist()


def _lengths(texts: pl.Series, unit: pl.Series) -> dict[str, Any]:
    lengths = texts.str.len_chars()
    edges = _edges(lengths.to_numpy())
    place = pl.Series("bin", np.searchsorted(edges, lengths.to_numpy(), side="right"), pl.Int64)
    table = pl.DataFrame({"unit": unit, "bin": place}).group_by("unit", "bin").len("times")
    return {"edges": edges, **_designed(table, len(edges) + 1)}


def _units(train: pl.DataFrame) -> pl.Series:
    """Return a number for what each row varies together with: its group, or itself alone."""
    group = pl.coalesce(pl.lit("g") + pl.col("group"), pl.lit("i") + pl.col("id"))
    return train.select(group.rank("dense").alias("unit")).to_series()


def _spread(rows: int, most: int) -> pl.Series:
    """Return evenly spread positions, at most so many. Rows in the order of their ids are in none that matters."""
    return pl.Series(np.unique(np.linspace(0, max(rows - 1, 0), min(rows, most)).astype(np.int64)))


def _words(texts: pl.Series) -> pl.Series:
    """Return the words of each text, a list each."""
    return texts.str.head(CHARACTERS).str.to_lowercase().str.extract_all(WORD).rename("word")


def _words_by_unit(texts: pl.Series, unit: pl.Series) -> pl.DataFrame:
    """Return how many times each unit has each word; columns unit, word, times."""
    tables = []
    for start in range(0, len(texts), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        part = pl.DataFrame({"unit": unit[rows], "word": _words(texts[rows])})
        tables.append(part.explode("word").drop_nulls().group_by("unit", "word").len("times"))
    if not tables:
        return pl.DataFrame(schema={"unit": pl.UInt32, "word": pl.String, "times": pl.UInt32})
    return pl.concat(tables).group_by("unit", "word").agg(pl.col("times").sum())


def _commonest(counted: pl.DataFrame) -> dict[str, Any]:
    """Return the measure of the commonest words; what is none of them is in the last bin."""
    totals = counted.group_by("word").agg(pl.col("times").sum()).sort("times", "word", descending=[True, False])
    words = totals["word"].head(COMMONEST)
    places = pl.DataFrame({"word": words, "bin": pl.int_range(len(words), eager=True, dtype=pl.Int64)})
    placed = counted.join(places, on="word", how="left").with_columns(pl.col("bin").fill_null(len(words)))
    table = placed.group_by("unit", "bin").agg(pl.col("times").sum())
    return {"words": words.to_list(), **_designed(table, len(words) + 1)}


def _known(counted: pl.DataFrame) -> dict[str, Any]:
    """Return the measure of words never seen in training.

    Of many words a sample is known, by a checksum of each, so that the profile stays small. How often a new text brings
    a new word is told by those that only one unit has: to all others they were new (Good 1953, leaving a unit out).
    """
    types = counted.group_by("word").agg(alone=pl.len() == 1).sort("word")
    one_in = max(1, round(types.height / KNOWN))
    codes = pl.Series("code", [crc32(word.encode()) for word in types["word"]], pl.UInt32)
    sampled = types.with_columns(codes).filter(pl.col("code") % one_in == 0)
    table = counted.join(sampled, on="word").group_by("unit", bin=pl.col("alone").cast(pl.Int64))
    known = np.sort(sampled["code"].unique().to_numpy()).astype("<u4")
    return {
        "one_in": one_in,
        "known": base64.b64encode(known.tobytes()).decode(),
        **_designed(table.agg(pl.col("times").sum()), 2),
    }


def _designed(table: pl.DataFrame, bins: int) -> dict[str, Any]:
    """Return counts per bin and the design effect, out of the times per unit and bin.

    The variance of a share is that of a ratio of sums over units; its mean over the bins, in units of that of
    independent draws, is the correction of a chi-square statistic of first order (Rao & Scott 1981).
    """
    # whole numbers, whose sums are the same in any order
    per_unit = table.with_columns(
        pl.col("times").cast(pl.Int64), whole=pl.col("times").cast(pl.Int64).sum().over("unit")
    )
    sums = per_unit.group_by("bin").agg(
        counts=pl.col("times").sum(),
        squares=(pl.col("times") ** 2).sum(),
        mixed=(pl.col("times") * pl.col("whole")).sum(),
    )
    filled = pl.DataFrame({"bin": pl.int_range(bins, eager=True, dtype=pl.Int64)}).join(sums, on="bin", how="left")
    filled = filled.fill_null(0).sort("bin")
    counts, squares, mixed = (filled[name].to_numpy().astype(np.float64) for name in ("counts", "squares", "mixed"))
    total = counts.sum()
    wholes = per_unit.unique("unit")["whole"]
    design = 1.0
    if total and (counts > 0).sum() > 1:
        share = counts / total
        variance = squares - 2 * share * mixed + share**2 * float((wholes**2).sum())
        spread = share > 0
        design = float((variance[spread] / (total * share[spread])).sum() / (spread.sum() - 1))
    return {"counts": counts.astype(np.int64).tolist(), "design": round(max(1.0, design), DIGITS)}
