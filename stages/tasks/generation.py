"""Answers that a language model generates: greedily, in float32, in batches that depend on the rows alone.

So the same rows and weights give the same answers. In float32 a row has the same answer in any batch; in bfloat16 it
has not.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig, TextIteratorStreamer, logging

from stages.tasks.base import Refused
from stages.tasks.conversations import Message, learnt, waits
from stages.tasks.inference import load_model
from stages.tasks.language_models import ChatTokens, pad_id
from stages.tasks.predicted import questions_and_answers

if TYPE_CHECKING:
    from polars import DataFrame, Series

Pair = tuple[str, str]  # a question, and its answer
SEED = "answers"  # of the draw of rows that are asked
PAUSE = 0.5  # seconds without a piece
BATCH, TOKENS, PADDING = 32, 16_384, 1_024  # rows that are answered at once, their tokens, and those that fill up
COLDEST = 1e-3  # temperature: below it the likeliest token is taken, where a quotient would be infinite
SHOTS = 3  # training questions, with their answers, before a question, of the baseline `few_shot`


def asked(rows: "DataFrame", count: int) -> np.ndarray:
    """Return which rows are asked [n] bool: so many, drawn by a hash of their ids; where some have answers, those."""
    from stages.common.digests import hash_order

    if "prediction" in rows.columns:
        return np.array(["answer" in json.loads(text) for text in rows["prediction"]], bool)
    order = rows.select(hash_order("id", SEED).rank("ordinal")).to_series()
    return (order <= count).to_numpy() if rows.height else np.zeros(0, bool)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows by their lengths in tokens, the longest first, as many at once as the three numbers above allow."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        whole = (len(batch) + 1) * lengths[(batch or [row])[0]]
        padding = whole - sum(lengths[other] for other in [*batch, row])
        if batch and (len(batch) == BATCH or whole > TOKENS or padding > PADDING):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


class Sampling(NamedTuple):
    """How tokens are drawn: without a temperature not at all, but the likeliest is taken."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class Speaker:
    """A language model that answers conversations."""

    def __init__(self, model: Any, tokens: ChatTokens) -> None:
        logging.set_verbosity_error()
        # one answer has all threads, in the order in which they were asked for; and random numbers are shared
        self.model, self.worker = model, ThreadPoolExecutor(1, "answers")
        self.model.generation_config = GenerationConfig()  # or its own would add sampling and penalties
        self.template, self.tokenizer = tokens.template, tokens.template.tokenizer
        self._tokens, self.context = tokens, tokens.context
        self.ends, self._pad = self.template.ends, pad_id(self.tokenizer)

    def prompt(self, messages: Sequence[Message], turns: Sequence[Message] = (), most: int = 0) -> list[int]:
        """Return the tokens of a conversation up to its last answer that is learnt, of so many at most.

        Other turns may come first, of which those farthest from it are left out if there is no room.
        """
        found, begin = self.template.tokens(messages), int(messages[0]["role"] == "system")
        if turns:
            messages = [*messages[:begin], *turns, *messages[begin + found.dropped :]]
            with suppress(Refused):  # for the sake of these turns
                found = self.template.longer(self.context - most).tokens(messages)
        behind = len(found.learnt) - found.learnt[::-1].index(1)
        return found.ids[: behind - found.learnt[:behind][::-1].index(0)]

    def answers(self, prompts: Sequence[list[int]], most: int) -> list[dict[str, Any]]:
        """Return for each prompt `answer`, `finish` and `new_tokens`.

        `finish` is `stop`, or `length` after so many tokens, or as many as the model has room for.
        """
        result: list[dict[str, Any]] = [{} for _ in prompts]
        rooms = [max(1, min(most, self.context - len(prompt))) for prompt in prompts]
        wide = [row for row, room in enumerate(rooms) if room == most]
        planned = [[row] for row, room in enumerate(rooms) if room < most]  # alone: others get longer answers
        planned += [[wide[place] for place in part] for part in batches([len(prompts[row]) + most for row in wide])]
        ends: dict[str, Any] = {"eos_token_id": sorted(self.ends), "pad_token_id": self._pad}
        for rows in tqdm(planned, unit=" batches", leave=False, disable=None if len(planned) > 1 else True):
            plan = GenerationConfig(do_sample=False, max_new_tokens=rooms[rows[0]], **ends)
            longest = len(prompts[rows[0]])
            ids, there = torch.full((len(rows), longest), self._pad), torch.zeros(len(rows), longest, dtype=torch.int64)
            for place, row in enumerate(rows):
                start = longest - len(prompts[row])
                ids[place, start:], there[place, start:] = torch.tensor(prompts[row]), 1
            device = self.model.device
            with torch.inference_mode():
                made = self.model.generate(
                    input_ids=ids.to(device), attention_mask=there.to(device), generation_config=plan
                )
            for row, tokens in zip(rows, made[:, longest:].tolist(), strict=True):
                result[row] = self._said(tokens)
        return result

    def replies(self, conversations: Sequence[Sequence[Message]], most: int) -> list[dict[str, Any]]:
        """Return the `answers` to those that wait for one, of others nothing; Refused, if one leaves no room."""
        result: list[dict[str, Any]] = [{} for _ in conversations]
        waiting = [place for place, messages in enumerate(conversations) if waits(messages)]
        prompts = [self.question(conversations[place]) for place in waiting]
        for place, answer in zip(waiting, self.answers(prompts, most), strict=True):
            result[place] = answer
        return result

    def question(self, messages: Sequence[Message], most: int = 1) -> list[int]:
        """Return the tokens of a conversation that waits for an answer; Refused, if one of so many has no room."""
        return self._tokens.question(messages, most)

    def stream(self, prompt: list[int], most: int, sampling: Sampling, stops: Sequence[str] = ()) -> "Stream":
        """Return the answer to a prompt as pieces of text, up to the first of the texts at which it stops."""
        drawn: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        drawn = drawn if sampling.temperature >= COLDEST else {}
        ends = {"eos_token_id": sorted(self.ends), "pad_token_id": self._pad}
        plan = GenerationConfig(do_sample=bool(drawn), max_new_tokens=most, **drawn, **ends)
        return Stream(self, prompt, plan, sampling.seed, stops)

    def _said(self, tokens: list[int]) -> dict[str, Any]:
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return {"answer": text, "finish": "length" if end is None else "stop", "new_tokens": len(tokens[:end])}


class Stream:
    """The pieces of one answer, which is generated in a thread beside when it is the answer's turn.

    So a client that reads slowly keeps nobody else waiting. `finish` and `new_tokens` hold once there are no more.
    """

    def __init__(
        self, speaker: Speaker, prompt: list[int], plan: GenerationConfig, seed: int | None, stops: Sequence[str]
    ) -> None:
        self.prompt, self.finish, self.new_tokens = prompt, "length", 0
        self._speaker, self._plan, self._seed = speaker, plan, seed
        self._pieces = TextIteratorStreamer(speaker.tokenizer, True, PAUSE, skip_special_tokens=True)
        self._stops, self._failed = [stop for stop in stops if stop], list[Exception]()
        self.stopped = Event()

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces, up to a text that stops it; an empty one now and then while nothing comes."""
        self._speaker.worker.submit(self._generate)
        held, keep = "", max(map(len, self._stops), default=1) - 1
        for piece in self._come():
            held += piece
            found = [place for stop in self._stops if (place := held.find(stop)) >= 0]
            if found:
                self.finish = "stop"
                self.stop()
                yield held[: min(found)]
                return
            ready = max(0, len(held) - keep)  # in the rest, one of the texts may have begun
            yield held[:ready]
            held = held[ready:]
        if self._failed:
            raise self._failed[0]
        yield held

    def stop(self) -> None:
        """Let nothing more come; an answer whose turn has not come does not begin."""
        self.stopped.set()

    def _come(self) -> Iterator[str]:
        while True:
            try:
                yield next(self._pieces)
            except Empty:
                yield ""
            except StopIteration:
                return

    def _generate(self) -> None:
        ids = torch.tensor([self.prompt], device=self._speaker.model.device)
        options = {"streamer": self._pieces, "generation_config": self._plan, "stopping_criteria": [self._is_over]}
        if self.stopped.is_set():
            return
        try:
            if self._seed is not None:
                torch.manual_seed(self._seed)
            with torch.inference_mode():
                self._speaker.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
        except Exception as error:  # of whatever kind: who waits for pieces is told
            self._failed.append(error)
            self._pieces.on_finalized_text("", stream_end=True)

    def _is_over(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Count a token [1 x s]; return whether it is the last one [1]."""
        over = self.stopped.is_set()
        if not over:
            self.new_tokens += 1
            if int(ids[0, -1]) in self._speaker.ends:
                self.finish = "stop"
        return torch.full((len(ids),), over, device=ids.device)


def answers(
    model: Path, words: Path, rows: "DataFrame", decision: Any, examples: Mapping[str, list[Message]] | None = None
) -> list[dict[str, Any]]:
    """Return of each row what a model answers; of rows that are not asked, nothing.

    `examples` are turns that come first, by the row's id.
    """
    chosen = asked(rows, decision.rows).nonzero()[0].tolist()
    result: list[dict[str, Any]] = [{} for _ in range(rows.height)]
    if not chosen:
        return result
    network = load_model(model, AutoModelForCausalLM).to("cuda" if torch.cuda.is_available() else "cpu")
    speaker, most = Speaker(network, ChatTokens(words)), decision.max_new_tokens
    pairs = zip(rows["id"].gather(chosen), rows["label"].gather(chosen), strict=True)
    prompts = [speaker.prompt(json.loads(label), (examples or {}).get(id, []), most) for id, label in pairs]
    for row, answer in zip(chosen, speaker.answers(prompts, most), strict=True):
        result[row] = {**answer, "kind": decision.kind}
    return result


def examples(train: "DataFrame", test: "DataFrame") -> dict[str, list[Message]]:
    """Return by id of each test row the training questions most like its last one, with answers, the nearest last."""
    found = zip(test["id"], _nearest(train, test, SHOTS), strict=True)
    return {
        id: [
            {"role": role, "content": text}
            for pair in pairs[::-1]
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        for id, pairs in found
    }


def nearest_answers(train: "DataFrame", test: "DataFrame", decision: Any) -> list[str]:
    """Return for each row that is asked the answer to the training question most like its last one, as JSON."""
    answered = zip(_nearest(train, test, 1), asked(test, decision.rows), strict=True)
    return [
        json.dumps({"answer": answer, "finish": "stop", "kind": decision.kind} if ask else {}, ensure_ascii=False)
        for [(_, answer)], ask in answered
    ]


def _nearest(train: "DataFrame", test: "DataFrame", count: int) -> list[list[Pair]]:
    """Return for each test row the pairs of training rows whose question is most like its last one, by TF-IDF."""
    import polars as pl
    from sklearn.neighbors import NearestNeighbors

    from stages.common.text.columns import is_unspaced, tfidf

    pairs = [pair for label in train["label"] for pair in questions_and_answers(label)]
    questions = [question for question, _ in pairs]
    spaced = any(map(re.compile(r"\w").search, questions)) and not is_unspaced(pl.Series(questions))
    vectors = tfidf(spaced, 1)
    known = vectors.fit_transform(questions)
    neighbours = NearestNeighbors(n_neighbors=min(count, len(pairs)), metric="cosine", algorithm="brute").fit(known)
    asked_last = vectors.transform([questions_and_answers(label)[-1][0] for label in test["label"]])
    return [[pairs[place] for place in row] for row in neighbours.kneighbors(asked_last, return_distance=False)]


def side_by_side(rows: "DataFrame", baselines: "Mapping[str, Series]") -> "DataFrame":
    """Return of the rows that were asked id, asked, before (the two turns), reference, and what each model says."""
    import polars as pl

    answers = {"this model": rows["prediction"], **baselines}
    table = []
    for row in asked(rows, 0).nonzero()[0].tolist():
        messages: list[Message] = json.loads(rows["label"][row])
        last = max(place for place, part in enumerate(messages) if learnt(part))
        before = "\n".join(f"{part['role']}: {part['content']}" for part in messages[max(0, last - 3) : last - 1])
        turns = {"asked": messages[last - 1]["content"], "before": before, "reference": messages[last]["content"]}
        said = {name: json.loads(texts[row]).get("answer") for name, texts in answers.items()}
        table.append({"id": rows["id"][row], **turns, **said})
    return pl.DataFrame(table, infer_schema_length=None).sort("id") if table else pl.DataFrame()
