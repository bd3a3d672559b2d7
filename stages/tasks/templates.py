"""Conversations as the base model's own chat template spells them, and which of their tokens are learnt.

What is learnt is proven by prefixes: the tokens of a conversation up to a question, with the mark that an answer comes,
must be the first tokens of the whole, and so must those up to the end of the answer. A template that does not keep to
this (it drops earlier thoughts, say) would have the model learn what it is never asked. An answer is learnt with the
token that ends the turn, which must be one at which generation stops: else the model would never stop (trl#976).

The file goes into the registry with each model, to be served with it.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.tasks.base import Refused
from stages.tasks.conversations import Message, learnt

if TYPE_CHECKING:
    from polars import DataFrame
    from transformers import PreTrainedTokenizerBase

SHOWN, PIECES = 3, 12  # rows, and pieces of each, whose tokens the report shows
FILE = "chat.json"  # beside the model: what of the params it was trained with
# Where a template asks for today: else the same rows would have other tokens tomorrow. (Llama 3.1 takes a date.)
DAY = "01 Jan 2026"
ANY_DAY = "{% macro strftime_now(form) %}{{ '2026-01-01' if form == '%Y-%m-%d' else '" + DAY + "' }}{% endmacro %}"


@dataclass(frozen=True)
class Tokens:
    """A conversation as token ids."""

    ids: list[int]
    learnt: list[int]  # 1 for a token of an answer that is learnt, else 0
    bytes: int  # of the texts of these answers, in UTF-8
    dropped: int  # turns that were left out at its beginning


def wording(tokenizer: "PreTrainedTokenizerBase", too_long: str, train_on: str) -> dict[str, Any]:
    """Return what has to be known, beside the tokenizer, to make the same tokens of a conversation again.

    An AttuneError if the tokenizer has no chat template, or no token that ends a text.
    """
    from stages.common.errors import AttuneError

    unfit = "the base model's tokenizer cannot be used for conversations: it has no"
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    if not template:
        fix = "take the -Instruct or -it variant of the model, or put the chat_template.jinja of a model of the same "
        raise AttuneError(f"{unfit} chat template", f"{fix}family into its folder")
    settings = Path(tokenizer.name_or_path, "generation_config.json")
    named = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id") if settings.exists() else None
    ends = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id} - {None}
    if not ends:
        raise AttuneError(f"{unfit} token that ends a text", "name one as eos_token in its tokenizer_config.json")
    return {"too_long": too_long, "train_on": train_on, "template": digest_of(tokenizer), "ends": sorted(ends)}


def write_words(space: Mapping[str, Any], folder: Path) -> None:
    """Write beside a model what `Template` has to know to make the same tokens of a conversation."""
    words = {name: space[name] for name in ("max_length", "too_long", "train_on", "template", "ends")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")


def digest_of(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the SHA-256 of the chat template."""
    return sha256(str(tokenizer.get_chat_template()).encode()).hexdigest()


class Template:
    """Makes tokens of conversations, as `wording` says, with at most `max_length` of them.

    A ValueError if the tokenizer's chat template is not the one of `wording`.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", words: Mapping[str, Any], max_length: int) -> None:
        self.tokenizer, self._words, self.max_length = tokenizer, words, max_length
        self.ends = set(words["ends"])
        if digest_of(tokenizer) != words["template"]:
            what = "the chat template of the tokenizer is not the one that this model was trained with"
            raise ValueError(f"{what}: put {tokenizer.name_or_path} back as it was, or train again")
        added = tokenizer.added_tokens_decoder.values()
        template = str(tokenizer.get_chat_template())
        self._spelling = f"{ANY_DAY * ('strftime_now' in template)}{template}"
        self._special = sorted({*tokenizer.all_special_tokens, *(token.content for token in added if token.special)})

    def tokens(self, messages: Sequence[Message]) -> Tokens:
        """Return the tokens of a conversation up to its last answer that is learnt; Refused if they cannot be had."""
        self._check(messages)
        chosen = [number for number, part in enumerate(messages) if learnt(part)]
        if self._words["train_on"] == "last":
            chosen = chosen[-1:]
        messages, begin = list(messages[: chosen[-1] + 1]), int(messages[0]["role"] == "system")

        def rest(dropped: int) -> list[Message]:  # without so many turns, each a question with its answer
            return [*messages[:begin], *messages[begin + 2 * dropped :]]

        may_drop = self._words["too_long"] == "drop_turns"
        most = (chosen[-1] - begin) // 2 if may_drop else 0  # the last answer stays
        dropped = bisect_left(range(most), True, key=lambda turns: self._fits(rest(turns)))
        if dropped == most and not self._fits(rest(dropped)):
            raise Refused(f"it is over tokenize.max_length, {self.max_length} tokens", "too_long")
        left = [number - 2 * dropped for number in chosen if number >= begin + 2 * dropped]
        ids, marks = self._tokens(messages := rest(dropped), left)
        return Tokens(ids, marks, sum(len(messages[number]["content"].encode()) for number in left), 2 * dropped)

    def longer(self, max_length: int) -> "Template":
        """Return the same for so many tokens, which leaves out the oldest turns."""
        return Template(self.tokenizer, {**self._words, "too_long": "drop_turns"}, max_length)

    def question(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation that waits for an answer, of any length; Refused if it cannot be had."""
        self._check(messages)
        ids: list[int] = self.tokenizer(self._spelled(messages, asking=True), add_special_tokens=False)["input_ids"]
        return ids

    def _check(self, messages: Sequence[Message]) -> None:
        if typed := [mark for mark in self._special if any(mark in part["content"] for part in messages)]:
            raise Refused(f"a text holds {typed[0]!r}, a mark of the template", "template_tokens")

    def _fits(self, messages: Sequence[Message]) -> bool:
        """Return whether a conversation up to the end of its last turn is no longer than it may be."""
        ids = self.tokenizer(self._spelled(messages), add_special_tokens=False)["input_ids"]
        behind = next((number for number, token in enumerate(reversed(ids)) if token in self._words["ends"]), 0)
        return len(ids) - behind <= self.max_length

    def _tokens(self, messages: Sequence[Message], chosen: Sequence[int]) -> tuple[list[int], list[int]]:
        texts = [self._spelled(messages)]
        for number in chosen:
            texts += [self._spelled(messages[:number], asking=True), self._spelled(messages[: number + 1])]
        whole, *prefixes = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        marks = [0] * len(whole)
        for before, after in zip(prefixes[::2], prefixes[1::2], strict=True):
            if whole[: len(before)] != before or whole[: len(after)] != after:
                reason = "what the template makes of its beginning is not how it begins as a whole"
                raise Refused(reason, "template_prefix")
            answer = whole[len(before) : len(after)]
            ends = [place for place, token in enumerate(answer) if token in self._words["ends"]]
            if not ends or not ends[-1]:
                last = self.tokenizer.decode(answer[-2:])
                reason = f"the template ends an answer with {last!r}, at which the model does not stop to generate"
                raise Refused(reason, "untrained_end")
            marks[len(before) : len(before) + ends[-1] + 1] = [1] * (ends[-1] + 1)
        length = len(marks) - marks[::-1].index(1)
        return whole[:length], marks[:length]

    def _spelled(self, messages: Sequence[Message], asking: bool = False) -> str:
        from jinja2 import TemplateError

        plain = [{"role": part["role"], "content": part["content"]} for part in messages]
        options = {"tokenize": False, "add_generation_prompt": asking, "date_string": DAY}
        try:
            return str(self.tokenizer.apply_chat_template(plain, chat_template=self._spelling, **options))
        except (TemplateError, TypeError, ValueError) as error:
            raise Refused(f"the base model's template refuses it: {str(error)[:100]}", "template_refuses") from None

    def view(self, found: Tokens) -> list[tuple[str, bool]]:
        """Return the text of tokens in pieces that are learnt, or not."""
        pairs = groupby(zip(found.ids, found.learnt, strict=True), key=lambda pair: pair[1])
        return [(self.tokenizer.decode([token for token, _ in part]), bool(mark)) for mark, part in pairs]


def encoded(rows: "DataFrame", template: Template) -> "tuple[DataFrame, DataFrame, dict[str, Any]]":
    """Return tokens of records, of which `labels` say which are learnt (1, else 0), rejected rows, and a report.

    The report has the share of tokens that are learnt, how many rows lost turns, why others are rejected, and of the
    first rows the pieces of text, each with whether it is learnt.
    """
    import polars as pl

    from stages.common.display import display
    from stages.common.schemas import Rejected
    from stages.common.text.pii import mask_text

    kept: list[dict[str, Any]] = []
    reasons: list[tuple[str | None, str | None]] = []
    shown: list[dict[str, Any]] = []
    dropped = 0
    for id, label in rows.select("id", "label").iter_rows():
        try:
            found = template.tokens(json.loads(label))
        except Refused as refusal:
            reasons.append((refusal.rule, str(refusal)))
            continue
        reasons.append((None, None))
        dropped += found.dropped > 0
        row = {"id": id, "input_ids": found.ids, "token_type_ids": [0] * len(found.ids), "labels": found.learnt}
        kept.append({**row, "length": len(found.ids), "truncated": 0})
        if len(shown) < SHOWN:
            pieces = template.view(found)[:PIECES]
            hidden = [[display(_end(mask_text(text, None)), 160, None), mark] for text, mark in pieces]
            shown.append({"id": id, "pieces": hidden})
    types = {"input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Float32), "token_type_ids": pl.List(pl.Int8)}
    table = pl.DataFrame(kept, schema_overrides=types, infer_schema_length=None)
    why = pl.DataFrame(reasons, schema={"rule": pl.String, "why": pl.String}, orient="row")
    rejected = Rejected.of(rows.hstack(why).drop_nulls("rule"), "tokenize", pl.col("rule"), pl.col("why"))
    marks = table["labels"].explode() if kept else pl.Series([0.0])
    report = {
        "share_learnt": round(float(marks.sum()) / len(marks), 4),
        "rows_without_oldest_turns": dropped,
        "rows_rejected": rejected.height,
        "rejected_because": dict(rejected["reason"].value_counts().sort("reason").iter_rows()),
        "pieces": shown,
    }
    return table, rejected, report


def _end(text: str) -> str:
    """Return the end of a piece: there it is seen what comes before an answer, and what ends it."""
    return text if len(text) <= 150 else f"…{text[-150:]}"
