"""Answers that a language model generates: greedily, in float32, in batches that depend on the rows alone.

So the same rows and weights give the same answers. In float32 a row has the same answer in any batch; in bfloat16 it
has not.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig, TextIteratorStreamer, logging

from stages.tasks.base import Refused
from stages.tasks.conversations import Message, learnt, waits
from stages.tasks.inference import load_model
from stages.tasks.language_models import ChatTokens, pad_id

if TYPE_CHECKING:
    from polars import DataFrame, Series

Pair = tuple[str, str]  # a question, and its answer
SEED = "answers"  # of the draw of rows that are asked
PAUSE = 0.5  # seconds without a piece
BATCH, TOKENS, PADDING = 32, 16_384, 1_024  # rows that are answered at once, their tokens, and those that fill up
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
        self.model, self.turn = model, Lock()  # one answer has all threads, and random numbers are shared
        self.model.generation_config = GenerationConfig()  # or its own would add sampling and penalties
        self.template, self.tokenizer = tokens.template, tokens.template.tokenizer
        self.ends, self._pad = self.template.ends, pad_id(self.tokenizer)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048)

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
        """Return for each prompt `answer`, `finish` (`stop`, or `length` after so many tokens) and `new_tokens`."""
        result: list[dict[str, Any]] = [{} for _ in prompts]
        plan = GenerationConfig(
            do_sample=False, max_new_tokens=most, eos_token_id=sorted(self.ends), pad_token_id=self._pad
        )
        planned = [*batches([len(prompt) + most for prompt in prompts])]
        for rows in tqdm(planned, unit=" batches", leave=False, disable=None if len(planned) > 1 else True):
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
        """Return the `answers` to those that wait for one, of others nothing; Refused, if one leaves no room for it."""
        result: list[dict[str, Any]] = [{} for _ in conversations]
        waiting = [place for place, messages in enumerate(conversations) if waits(messages)]
        prompts = [self.question(conversations[place], most) for place in waiting]
        for place, answer in zip(waiting, self.answers(prompts, most), strict=True):
            result[place] = answer
        return result

    def question(self, messages: Sequence[Message], most: int) -> list[int]:
        """Return the tokens of a conversation that waits for an answer; Refused, if one of so many has no room."""
        ids = self.template.question(messages)
        if len(ids) + most > self.context:
            what = f"{len(ids):,} tokens and an answer of {most:,} are more than {self.context:,}"
            raise Refused(what, "too_long")
        return ids

    def stream(self, prompt: list[int], most: int, sampling: Sampling) -> "Stream":
        """Begin to answer a prompt; return the pieces of text as they come."""
        drawn: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        drawn = drawn if sampling.temperature else {}
        ends = {"eos_token_id": sorted(self.ends), "pad_token_id": self._pad}
        plan = GenerationConfig(do_sample=bool(drawn), max_new_tokens=most, **drawn, **ends)
        return Stream(self, prompt, plan, sampling.seed)

    def _said(self, tokens: list[int]) -> dict[str, Any]:
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        return {"answer": text, "finish": "length" if end is None else "stop", "new_tokens": len(tokens[:end])}


class Stream:
    """The pieces of one answer, which is generated in a thread beside; it ends where nobody takes them any more.

    So a client that reads slowly keeps nobody else waiting.
    """

    def __init__(self, speaker: Speaker, prompt: list[int], plan: GenerationConfig, seed: int | None) -> None:
        self._speaker, self._prompt, self._plan, self._seed = speaker, prompt, plan, seed
        self._pieces = TextIteratorStreamer(speaker.tokenizer, True, PAUSE, skip_special_tokens=True)
        self._stopped, self._made, self._failed = Event(), list[int](), list[Exception]()

    def __iter__(self) -> Generator[str]:
        """Yield the pieces; an empty one now and then, while others are answered, lets go who does not wait."""
        thread = Thread(target=self._generate, daemon=True)
        thread.start()
        try:
            while True:
                try:
                    yield next(self._pieces)
                except Empty:
                    yield ""
                except StopIteration:
                    break
        finally:
            self._stopped.set()
            thread.join()
        if self._failed:
            raise self._failed[0]

    def end(self) -> dict[str, Any]:
        """Return `finish` and `new_tokens`, once there are no more pieces, or a text stopped it."""
        stopped = self._made[-1:] and self._made[-1] in self._speaker.ends
        cut = len(self._made) < self._plan.max_new_tokens
        return {"finish": "stop" if stopped or cut else "length", "new_tokens": len(self._made)}

    def _generate(self) -> None:
        ids = torch.tensor([self._prompt], device=self._speaker.model.device)
        options = {"streamer": self._pieces, "generation_config": self._plan, "stopping_criteria": [self._is_over]}
        try:
            with self._speaker.turn, torch.inference_mode():
                if self._seed is not None:
                    torch.manual_seed(self._seed)
                made = self._speaker.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
            self._made = made[0, len(self._prompt) :].tolist()
        except Exception as error:  # of whatever kind: who waits for pieces is told
            self._failed.append(error)
            self._pieces.on_finalized_text("", stream_end=True)

    def _is_over(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(ids),), self._stopped.is_set(), device=ids.device)


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

    pairs = [pair for label in train["label"] for pair in _pairs(label)]
    questions = [question for question, _ in pairs]
    vectors = tfidf(not is_unspaced(pl.Series(questions)), 1)
    known = vectors.fit_transform(questions)
    neighbours = NearestNeighbors(n_neighbors=min(count, len(pairs)), metric="cosine", algorithm="brute").fit(known)
    asked_last = vectors.transform([_pairs(label)[-1][0] for label in test["label"]])
    return [[pairs[place] for place in row] for row in neighbours.kneighbors(asked_last, return_distance=False)]


def _pairs(label: str) -> list[Pair]:
    """Return the answers of a conversation that are learnt, each with the question before it."""
    messages: list[Message] = json.loads(label)
    places = [place for place, part in enumerate(messages) if learnt(part)]
    return [(messages[place - 1]["content"], messages[place]["content"]) for place in places]


def side_by_side(rows: "DataFrame", baselines: "Mapping[str, Series]") -> "DataFrame":
    """Return of the rows that were asked id, asked, before (earlier turns), reference, and what each model says."""
    import polars as pl

    answers = {"this model": rows["prediction"], **baselines}
    table = []
    for row in asked(rows, 0).nonzero()[0].tolist():
        messages: list[Message] = json.loads(rows["label"][row])
        last = max(place for place, part in enumerate(messages) if learnt(part))
        before = "\n".join(f"{part['role']}: {part['content']}" for part in messages[: last - 1])
        turns = {"asked": messages[last - 1]["content"], "before": before, "reference": messages[last]["content"]}
        said = {name: json.loads(texts[row]).get("answer") for name, texts in answers.items()}
        table.append({"id": rows["id"][row], **turns, **said})
    return pl.DataFrame(table, infer_schema_length=None).sort("id") if table else pl.DataFrame()
