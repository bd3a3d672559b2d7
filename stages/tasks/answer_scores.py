"""What generated answers are worth beside the reference, as statistics of rows that add up.

chrF (Popović 2015) and BLEU (Papineni et al. 2002) are counted by sacrebleu (Post 2018), ROUGE-L (Lin 2004) by
rouge-score: the mean F of the rows. All are of 0 to 1. In scripts without blanks each character counts as a word.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from stages.tasks.evidence import Scores, ratio

ORDERS = 6  # of chrF: characters in a row
BLEU_ORDERS = 4
RATES = ("exact_match", "valid", "unfinished", "empty", "repetitive")
FIRST = 2 + len(RATES)  # columns before those of chrF: rows, ROUGE-L, RATES
WIDTH = FIRST + 3 * ORDERS + 2 + 2 * BLEU_ORDERS
BETA = 4.0  # of chrF: its square, by which recall counts more than precision
SAME = 4  # words in a row, which an answer that repeats itself has again and again
LEAST = 12  # such rows of words, below which an answer cannot be said to repeat itself
LETTERS = 40  # the same of the letters of one word
NUMBER = re.compile(r"(?:(?<!\w)[-+−])?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
FENCED = re.compile(r"\A\s*```\w*\r?\n(.*?)\r?\n?```\s*\Z", re.DOTALL)


def statistics(references: Sequence[str], said: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the statistics of answers [n x m] float64; zeros for rows that nobody asked, which have no answer."""
    import polars as pl
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    from sacrebleu import BLEU, CHRF

    from stages.common.text.columns import is_unspaced

    asked = [row for row, one in enumerate(said) if "answer" in one]
    texts, wanted = [said[row]["answer"].strip() for row in asked], [references[row].strip() for row in asked]
    result = np.zeros((len(said), WIDTH))
    if not asked:
        return result
    tokenize = "char" if is_unspaced(pl.Series(references, dtype=pl.String)) else "13a"
    counts = [metric._extract_corpus_statistics(texts, [wanted]) for metric in (CHRF(), BLEU(tokenize=tokenize))]
    rouge, choices = RougeScorer(["rougeL"], tokenizer=Words()), {_plain(text) for text in references}
    for place, (row, text, reference) in enumerate(zip(asked, texts, wanted, strict=True)):
        one, overlap = said[row], rouge.score(reference, text)["rougeL"].fmeasure
        value = of_kind(text, one["kind"], choices)
        rates = {
            "exact_match": value is not None and value == of_kind(reference, one["kind"], choices),
            "valid": value is not None,
            "unfinished": one["finish"] != "stop",
            "empty": not text,
            "repetitive": repeats(text),
        }
        result[row] = [1, overlap, *(rates[name] for name in RATES), *counts[0][place], *counts[1][place]]
    return result


def scores(sums: np.ndarray) -> Scores:
    """Return the scores of sums of statistics [... x m], each [...]."""
    rows = sums[..., 0]
    rates = {name: ratio(sums[..., 2 + place], rows) for place, name in enumerate(RATES)}
    bleu = sums[..., FIRST + 3 * ORDERS :]
    return {"rouge_l": ratio(sums[..., 1], rows), "chrf": _chrf(sums[..., FIRST:]), "bleu": _bleu(bleu), **rates}


def _chrf(sums: np.ndarray) -> np.ndarray:
    """Return chrF, as sacrebleu computes it: F of the mean precision and recall of the orders that both texts have."""
    answered, wanted, both = (sums[..., part : 3 * ORDERS : 3] for part in range(3))
    there = (answered > 0) & (wanted > 0)
    precision, recall = (
        ratio((ratio(both, part) * there).sum(axis=-1), there.sum(axis=-1)) for part in (answered, wanted)
    )
    return ratio((1 + BETA) * precision * recall, BETA * precision + recall)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU, as sacrebleu computes it: an order without a match counts as half of one, then a quarter, …."""
    answered, wanted = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + BLEU_ORDERS], sums[..., 2 + BLEU_ORDERS :]
    halved = 0.5 ** np.cumsum((matches == 0) & (totals > 0), axis=-1)
    precisions = ratio(np.where(matches > 0, matches, halved), totals)
    known = (precisions > 0).all(axis=-1) & (matches.sum(axis=-1) > 0)
    means = np.exp(np.log(np.where(precisions > 0, precisions, 1.0)).mean(axis=-1))
    return np.asarray(means * known * np.exp(np.minimum(0.0, 1 - ratio(wanted, answered))))


def of_kind(text: str, kind: str, choices: set[str]) -> Any:
    """Return what an answer says, to be compared: a text, one of the choices, JSON, its last number; None: nothing."""
    match kind:
        case "choice":
            return plain if (plain := _plain(text)) in choices else None
        case "json":
            fenced = FENCED.match(text)
            with suppress(ValueError, RecursionError):
                return json.dumps(_json(fenced[1] if fenced else text), sort_keys=True)
            return None
        case "number":
            found = NUMBER.findall(text)
            return float(found[-1].replace(",", "").replace("−", "-")) if found else None
    return _plain(text) or None


def repeats(text: str) -> bool:
    """Return whether fewer than half of a text's rows of four words are different ones, or of a word's letters."""
    words = Words().tokenize(text)
    return any(
        len(rows) >= least and 2 * len(set(rows)) < len(rows)
        for parts, least in ((words, LEAST), *((word, LETTERS) for word in words))
        for rows in [[tuple(parts[start : start + SAME]) for start in range(len(parts) - SAME + 1)]]
    )


class Words:
    """The words of a text in small letters, as rouge-score asks for them: its own are those of English alone."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words; of a text that has none (emoji, dashes) all characters but blanks."""
        from stages.common.text.columns import WORD

        return re.findall(WORD, text.lower().replace("_", " ")) or [*"".join(text.split())]


def _plain(text: str) -> str:
    plain = " ".join(text.casefold().split())
    return plain.rstrip(".!") or plain


def _json(text: str) -> Any:
    """Return what JSON says, in which 1.0 is 1; a ValueError if it is none, as with NaN, which Python would take."""

    def number(digits: str) -> float:
        value = float(digits)
        return int(value) if value.is_integer() else value

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_float=number, parse_constant=refuse)
