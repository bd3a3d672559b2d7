"""Behavioural tests (CheckList, Ribeiro et al. 2020): what a model must do whatever its average score.

Invariance: a change that says nothing new leaves the prediction as it is. Minimum: texts that any usable model gets
right. Direction: a change such as a negation moves the probability of a label, or the value, one way.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import regex

from stages.common.digests import hash_order
from stages.common.params.evaluate import Behaviour, Invariance
from stages.common.schemas import BehaviourCases
from stages.common.text.columns import UNSPACED, whole_text
from stages.tasks.base import Task

DIGITS = 6
TEXTS = ("test", "kind", "text", "text_pair", "before", "before_pair", "expected")
PLAN = {**dict.fromkeys(TEXTS, pl.String), "score_before": pl.Float64}

NAME_LISTS = tomllib.loads(Path(__file__).with_name("given_names.toml").read_text(encoding="utf-8"))
WOMEN, MEN = (NAME_LISTS[gender].split() for gender in ("women", "men"))
GIVEN = "|".join((*WOMEN, *MEN))
NAMES, LOWERED_NAMES = (regex.compile(rf"\b(?:{names})\b") for names in (GIVEN, GIVEN.lower()))

# A word of four letters or more, of a script that separates words: two Chinese characters swapped are no slip.
LONG_WORD = regex.compile(rf"(?:(?!{UNSPACED})[\p{{L}}\p{{M}}]){{4,}}")
STOP = regex.compile(r"(?<=[\p{L}\p{M}\p{N}\)\"'”’»])[.。।۔។။]\s*$")
FULL_WIDTH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
ENDS_IN_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]\s*$")

Change = Callable[[str, Random], str | None]  # a text to the changed text; None where there is nothing to change


def typos(text: str, random: Random) -> str | None:
    """Swap, drop or double one letter inside of one word; its first and last stay."""
    words = list(LONG_WORD.finditer(text))
    if not words:
        return None
    match = random.choice(words)
    word, index = match[0], random.randrange(1, len(match[0]) - 2)
    slips = [word[:index] + word[index + 1 :], word[:index] + word[index] + word[index:]]
    if word[index] != word[index + 1]:
        slips.append(word[:index] + word[index + 1] + word[index] + word[index + 2 :])
    return text[: match.start()] + random.choice(slips) + text[match.end() :]


def names(text: str, random: Random) -> str | None:
    """Give the persons of a text other given names of the same gender; one name stays one name.

    Names are found by the lists of `given_names.toml`, with a capital, or without in a text that has none at all.
    """
    lowered = text == text.lower()
    pattern = LOWERED_NAMES if lowered else NAMES
    others: dict[str, str] = {}
    persons = sorted({match.capitalize() for match in pattern.findall(text)})
    for name in persons:
        free = [other for other in (WOMEN if name in WOMEN else MEN) if other not in (*persons, *others.values())]
        if not free:
            return None
        others[name] = random.choice(free)

    def replaced(match: regex.Match[str]) -> str:
        other = others[match[0].capitalize()]
        return other.lower() if lowered else other

    return str(pattern.sub(replaced, text)) if persons else None


def punctuation(text: str, random: Random) -> str | None:
    """Take the full stop from the end of a text, or put one there; marks that say more (!, ?, …) stay."""
    if stop := STOP.search(text):
        return text[: stop.start()]
    letters = regex.findall(r"\p{L}", text)
    if not letters or not ENDS_IN_WORD.search(text):
        return None
    if FULL_WIDTH.match(letters[-1]):
        return text.rstrip() + "。"
    return None if regex.match(UNSPACED, letters[-1]) else text.rstrip() + "."  # Thai and its neighbours have none


def casing(text: str, random: Random) -> str | None:
    """Write a text in small letters or in capitals; nothing where the script has no such thing."""
    variants = [text.lower(), text.upper()]
    random.shuffle(variants)
    return next((changed for changed in variants if changed != text), None)


CHANGES: dict[Invariance, Change] = {"typos": typos, "names": names, "punctuation": punctuation, "casing": casing}


def plan(params: Behaviour, rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return the texts to ask the model about, in the order of the params: a row a case with the columns of `PLAN`.

    `rows` are test records with the model's `prediction`, and the `score` that the task says a change moves; the seed
    decides which of them are changed, and how. `score_before` is null where the model is still to be asked.
    """
    cases: list[dict[str, Any]] = []
    for name in params.invariance:
        cases += _invariance(name, params.rows, rows, f"{seed} {name}")
    for minimum in params.minimum:
        case = {"test": minimum.name, "kind": "minimum", "expected": minimum.label}
        cases += [case | {"text": text} for text in minimum.cases]
    for direction in params.direction:
        case = {"test": direction.name, "kind": "direction", "expected": direction.label}
        cases += [case | {"text": changed, "before": text} for text, changed in direction.cases]
    return pl.DataFrame([{**dict.fromkeys(PLAN), **case} for case in cases], schema=PLAN)


def _invariance(name: Invariance, number: int, rows: pl.DataFrame, seed: str) -> list[dict[str, Any]]:
    """Return up to `number` cases, out of the first sampled rows that the change can change."""
    cases: list[dict[str, Any]] = []
    for row in rows.sort(hash_order("id", seed), "id").iter_rows(named=True):
        if len(cases) == number:
            break
        changed = CHANGES[name](row["text"], Random(f"{seed} {row['id']}"))
        if changed is None or changed == row["text"] or not changed.strip():
            continue
        case = {"test": name, "kind": "invariance", "text": changed, "text_pair": row["text_pair"]}
        case |= {"before": row["text"], "before_pair": row["text_pair"]}
        cases.append(case | {"expected": row["prediction"], "score_before": row["score"]})
    return cases


def judge(
    params: Behaviour, planned: pl.DataFrame, task: Task, decision: Any, ask: Callable[[pl.DataFrame], np.ndarray]
) -> pl.DataFrame:
    """Ask the model about the planned cases, all at once, and return schema BehaviourCases.

    `ask` makes the outputs [n x k] as they are answered with, of records with `text` and `text_pair`.
    """
    if planned.is_empty():
        return BehaviourCases.empty()
    befores = planned.select(text="before", text_pair="before_pair")
    unasked = planned["before"].is_not_null() & planned["score_before"].is_null()
    outputs = ask(pl.concat([planned.select("text", "text_pair"), befores.filter(unasked)]))
    after, earlier = outputs[: planned.height], outputs[planned.height :]
    expected, before = planned["expected"], planned["score_before"].to_numpy().copy()
    moved = task.moved(after, decision, expected.to_list())
    before[unasked.to_numpy()] = task.moved(earlier, decision, expected.filter(unasked).to_list())
    predictions = pl.DataFrame(task.decide(after, decision))
    passed = np.zeros(planned.height, dtype=bool)
    for kind in {"invariance", "minimum"} & {*planned["kind"]}:  # a task is asked about cases alone
        of_kind = (planned["kind"] == kind).to_numpy()
        passed[of_kind] = task.meets(kind, expected.filter(of_kind), predictions.filter(of_kind))
    for test in params.direction:
        change = (moved - before) * (1 if test.moves == "up" else -1)
        of_test = ((planned["kind"] == "direction") & (planned["test"] == test.name)).to_numpy()
        passed[of_test] = ((change > 0) & (change >= test.margin))[of_test]
    return planned.with_columns(
        text=whole_text(planned),
        before=pl.when(pl.col("before").is_not_null()).then(whole_text(befores)),
        prediction=predictions["prediction"],
        score=pl.Series(np.round(moved, DIGITS)),
        score_before=pl.Series(np.round(before, DIGITS)).fill_nan(None),
        passed=pl.Series(passed),
    ).select(BehaviourCases.columns())


def summary(params: Behaviour, cases: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return kind, cases, passed and pass rate of each test; the rate of a test without cases is None."""
    kinds: dict[str, str] = dict.fromkeys(params.invariance, "invariance")
    kinds |= {test.name: "minimum" for test in params.minimum}
    kinds |= {test.name: "direction" for test in params.direction}
    result = {}
    for name, kind in kinds.items():
        passed = cases.filter(pl.col("test") == name)["passed"]
        rate = round(int(passed.sum()) / len(passed), DIGITS) if len(passed) else None
        result[name] = {"kind": kind, "cases": len(passed), "passed": int(passed.sum()), "pass_rate": rate}
    return result


def print_summary(summary: Mapping[str, Mapping[str, int]]) -> None:
    """Say of each test how many cases passed."""
    for name, counts in summary.items():
        result = f"{counts['passed']:,} of {counts['cases']:,} passed" if counts["cases"] else "no case"
        print(f"  {name}: {result}", flush=True)
