"""How rows differ from those that a model was trained on, and whether chance alone would explain it.

Everything is counted in bins, so that counts of parts of the rows add up. The measure is the population stability
index, sum((new - old) * ln(new / old)) over the shares of the bins (Siddiqi 2006), with its usual limits: below 0.1 no
shift to speak of, from 0.25 on a large one. Chance alone makes it positive, the more so the fewer rows there are
(Yurdakul 2018). How much is estimated by drawing both sides from the same shares (a multinomial bootstrap): the mean of
the draws is subtracted, and an index below their upper bound is no sign of drift.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl

from stages.common.display import display
from stages.common.text.columns import WORD, is_unspaced, whole_text

FILE = "profile.json"
VERSION = 2
VERDICTS = ("no sign of drift", "slight drift", "strong drift")
SLIGHT, STRONG = 0.1, 0.25
ALPHA = 0.01  # probability of a false alarm in a report
DRAWS = 4_000
HALF = 0.5  # added to the count of each bin, so that an empty one has a logarithm
BINS = 10  # of lengths and of confidence: deciles, as is usual for the PSI
COMMONEST = 200  # words that are counted one by one
KNOWN = 4_096  # words, about, that "new words" looks up
SAMPLE = 50_000  # training rows whose words are counted, at most
CHARACTERS = 2_000  # of a text whose words are counted
ROWS = 5_000  # whose words are in memory at a time
DIGITS = 4
WHAT = {
    "text": "rows without a text",
    "lengths": "lengths of the texts",
    "words": "commonest words",
    "new words": "words never seen in training",
    "labels": "predicted labels",
    "confidence": "confidence",
    "abstentions": "abstentions",
}
BIN_NAMES = {
    "text": ["with a text", "without one"],
    "new words": ["known", "new"],
    "abstentions": ["answered", "abstained"],
}

Counts = dict[str, list[int]]  # of each measure, rows or words per bin
Values = Mapping[str, tuple[np.ndarray, list[str] | None]]  # numbers of bins with their names, or values without any
Profile = dict[str, Any]


def text_profile(rows: pl.DataFrame) -> Profile:
    """Return what the texts of rows with id, text, text_pair and group look like.

    It is JSON-able, under 100 KB, and the same in any order of the rows.
    """
    rows = rows.sort("id")
    texts = whole_text(rows)
    # Evenly spread rows, in the order of their ids, which is a random one.
    sample = rows[np.unique(np.linspace(0, max(rows.height - 1, 0), min(rows.height, SAMPLE)).astype(np.int64))]
    group = pl.coalesce(pl.lit("g") + pl.col("group"), pl.lit("i") + pl.col("id"))
    by_group = _words(whole_text(sample), sample.select(group.rank("dense")).to_series())
    counted = by_group.group_by("word").agg(pl.col("times").sum(), alone=pl.col("group").n_unique() == 1)
    words = counted.sort("times", "word", descending=[True, False])
    one_in = max(1, round(words.height / KNOWN))  # of many words a sample is kept, so that the profile stays small
    codes = pl.Series("code", [crc32(word.encode()) for word in words["word"]], pl.UInt32)
    looked_up = words.with_columns(codes).filter(pl.col("code") % one_in == 0)
    known = np.sort(looked_up["code"].unique().to_numpy()).astype("<u4")
    measures: dict[str, Any] = {
        "text": {},
        "lengths": {"edges": _edges(texts.str.len_chars().to_numpy())},
        "words": {"words": words["word"].head(COMMONEST).to_list()},
        "new words": {"one_in": one_in, "known": base64.b64encode(known.tobytes()).decode()},
    }
    profile = {"rows": rows.height, "unit": "characters" if is_unspaced(texts) else "words", "measures": measures}
    for name, counts in text_counts(profile, sample).items():
        measures[name]["counts"] = counts
    # How often a new text brings a new word: as often as words of a single group did, new to all others (Good 1953).
    alone = int(looked_up.filter("alone")["times"].sum())
    measures["new words"]["counts"] = [int(looked_up["times"].sum()) - alone, alone]
    return profile


def profile_of(train: pl.DataFrame, counts: Mapping[str, int], answers: Values, abstained: np.ndarray) -> Profile:
    """Return the profile of a model: that of its training texts (CleanRecords) and labels, and of its answers.

    `answers` is what drift of the answers to the validation rows is measured on, as the task gives it; `abstained` says
    to which there is none, [n] bool.
    """
    profile = text_profile(train)
    measures = profile["measures"]
    for name, (values, bins) in answers.items():
        measures[name] = {"edges": _edges(values)} if bins is None else {"labels": bins}
    measures["abstentions"] = {}
    for name, counted in answer_counts(profile, answers, abstained).items():
        measures[name]["counts"] = counted
    pairs = bool(train.height) and train["text_pair"].null_count() == 0
    return {"version": VERSION, "pairs": pairs, "train_labels": dict(counts), **profile}


def text_counts(profile: Mapping[str, Any], rows: pl.DataFrame) -> Counts:
    """Count a profile's measures of texts over rows with `text` (null where there is none) and `text_pair`."""
    measures = profile["measures"]
    common = {word: index for index, word in enumerate(measures["words"]["words"])}
    known = set(np.frombuffer(base64.b64decode(measures["new words"]["known"]), "<u4").tolist())
    words, new = [0] * (len(common) + 1), [0, 0]
    texts = whole_text(rows.filter(pl.col("text").is_not_null()))
    for word, times in _words(texts).select("word", "times").iter_rows():
        words[common.get(word, len(common))] += times
        if (code := crc32(word.encode())) % measures["new words"]["one_in"] == 0:
            new[code not in known] += times
    lengths = _binned(texts.str.len_chars().to_numpy(), measures["lengths"]["edges"])
    return {"text": [len(texts), rows.height - len(texts)], "lengths": lengths, "words": words, "new words": new}


def answer_counts(profile: Mapping[str, Any], answers: Values, abstained: np.ndarray) -> Counts:
    """Count a profile's measures of answers, and whether the model abstained [n]."""
    counts = {}
    for name, (values, bins) in answers.items():
        edges = profile["measures"][name].get("edges", [])
        counts[name] = _binned(values, edges) if bins is None else np.bincount(values, minlength=len(bins)).tolist()
    return {**counts, "abstentions": [int((~abstained).sum()), int(abstained.sum())]}


def drift_report(profile: Mapping[str, Any], counts: Counts) -> dict[str, Any]:
    """Compare counts of new rows with those of the rows that a model was trained on.

    There is a `verdict` (the worst; `not compared` without any), `measures`, and the names of those `not_compared`
    because there is nothing to count.
    """
    known = profile["measures"]
    names = [name for name in known if sum(counts.get(name, [])) and sum(known[name]["counts"])]
    measures = [_compared(name, profile, counts[name], ALPHA / len(known)) for name in names]
    return {
        "verdict": max((measure["verdict"] for measure in measures), key=VERDICTS.index, default="not compared"),
        "measures": measures,
        "not_compared": [WHAT.get(name, name) for name in known if name not in names],
    }


def split_drift(splits: Mapping[str, pl.DataFrame], counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Compare the texts and labels of validation and test with those of train; splits without rows are left out.

    `counts` are of each split the rows by label. There is an entry for each split and measure with what `drift_report`
    says of it.
    """
    train, entries = splits["train"], []
    labels = sorted({label for of_split in counts.values() for label in of_split})
    by_label = {name: [of_split.get(label, 0) for label in labels] for name, of_split in counts.items()}
    profile = text_profile(train)
    profile["measures"]["labels"] = {"labels": labels, "counts": by_label["train"]}
    del profile["measures"]["text"]  # clean rows have one
    for name in ("validation", "test"):
        if splits[name].height and train.height:
            new = text_counts(profile, splits[name]) | {"labels": by_label[name]}
            for measure in drift_report(profile, new)["measures"]:
                del measure["reason"]  # it may quote a word
                entries.append({"split": name} | measure | {"measure": measure["measure"].removeprefix("predicted ")})
    return entries


def psi(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the population stability index of counts [… x bins], each bin counted half a row higher."""
    shares = [(counts + HALF) / (counts + HALF).sum(axis=-1, keepdims=True) for counts in (old, new)]
    return np.asarray(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(axis=-1))


def by_chance(old: np.ndarray, size: int, alpha: float) -> tuple[float, float]:
    """Return mean and upper bound of the PSI between a sample like `old` and one of `size` with the same shares."""
    rng = np.random.default_rng(0)
    shares = (old + HALF) / (old + HALF).sum()
    values = psi(*(rng.multinomial(count, shares, DRAWS).astype(np.float64) for count in (int(old.sum()), size)))
    return float(values.mean()), float(np.quantile(values, 1 - alpha, method="higher"))


def _compared(name: str, profile: Mapping[str, Any], counts: list[int], alpha: float) -> dict[str, Any]:
    old, new = np.array(profile["measures"][name]["counts"], np.float64), np.array(counts, np.float64)
    index = float(psi(old, new))
    expected, limit = by_chance(old, int(new.sum()), alpha)
    level = 0 if index <= limit or index - expected < SLIGHT else 1 if index - expected < STRONG else 2
    before, after = old / old.sum(), new / new.sum()
    largest = int(np.argsort(-np.abs(after - before), kind="stable")[0])  # the bin that changed most
    what = WHAT.get(name, name)
    shares = f"{before[largest]:.1%} before, {after[largest]:.1%} now"
    return {
        "measure": what if profile["unit"] == "words" else what.replace("words", "characters"),
        "verdict": VERDICTS[level],
        "reason": f"most of all {_bin_name(name, profile, largest)}: {shares}",
        "psi": round(index, DIGITS),
        "expected": round(expected, DIGITS),
        "limit": round(limit, DIGITS),
        "n": sum(counts),
    }


def _bin_name(name: str, profile: Mapping[str, Any], position: int) -> str:
    measure = profile["measures"][name]
    if "edges" in measure:
        low, high = [0.0, *measure["edges"], math.inf][position : position + 2]
        return f"{low:g} to {high:g}"
    names = measure.get("labels") or BIN_NAMES.get(name) or [*map(repr, measure["words"]), f"other {profile['unit']}"]
    return display(names[position], 40)


def _edges(values: np.ndarray) -> list[float]:
    """Return the edges of bins with equally many values: BINS - 1, or fewer where many values are equal."""
    if not len(values):
        return []
    shares = np.arange(1, BINS) / BINS
    return sorted({float(edge) for edge in np.quantile(values, shares, method="inverted_cdf")})


def _binned(values: np.ndarray, edges: list[float]) -> list[int]:
    bins = np.searchsorted(edges, values, side="right")
    return np.bincount(bins, minlength=len(edges) + 1).tolist()


def _words(texts: pl.Series, groups: pl.Series | int = 0) -> pl.DataFrame:
    """Return columns group, word and times; a word may occur once for each slice of ROWS rows."""
    rows = pl.DataFrame({"group": groups, "text": texts})
    words = pl.col("text").str.head(CHARACTERS).str.to_lowercase().str.extract_all(WORD)
    counted = [
        part.select("group", word=words).explode("word").drop_nulls().group_by("group", "word").agg(times=pl.len())
        for part in rows.iter_slices(ROWS)
    ]
    return pl.concat(counted or [rows.select("group", word="text", times=pl.lit(0, pl.UInt32))])
