"""The hooks of a language model that say what it answers itself, beside what else, and what a server offers.

The file goes into the registry with each model, to be served with it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.tasks import predicted
from stages.tasks.base import Task

if TYPE_CHECKING:
    from polars import DataFrame, Series


class AnsweringTask(Task):
    """See the module."""

    def load(self, model: Path) -> Any:
        """See `language_models.Scored`."""
        from stages.tasks.language_models import load

        return load(model)

    def tokens(self, model: Path) -> Any:
        """See `language_models.ChatTokens`."""
        from stages.tasks.language_models import ChatTokens

        return ChatTokens(model)

    def spoken(self, model: Path, rows: "DataFrame", predictions: "DataFrame", decision: Any) -> "DataFrame":
        """Return predictions with what a model answers to some of the rows: see `generation.answers`."""
        import polars as pl

        from stages.tasks.generation import answers

        texts = predicted.joined(predictions["prediction"], answers(model, model, rows, decision))
        return predictions.with_columns(prediction=pl.Series(texts, dtype=pl.String))

    def replies(self, predictor: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
        """Return `answer`, `finish` and `new_tokens` of conversations that wait for an answer; null of others."""
        from stages.tasks.generation import Speaker

        speaker, most = Speaker(predictor.network.model, predictor.tokens), predictor.decision.max_new_tokens
        said = speaker.replies([json.loads(text) for text in texts], most)
        return {name: [one.get(name) for one in said] for name in ("answer", "finish", "new_tokens")}

    def routes(self, network: Any, folder: Path, name: str) -> Any:
        """Return the routes of a chat."""
        from stages.tasks.chat_api import Chat
        from stages.tasks.generation import Speaker
        from stages.tasks.language_models import ChatTokens

        return Chat(Speaker(network.model, ChatTokens(folder)), name).router

    def merge_gap(self, rows: "DataFrame", base: Path, tuned: Path) -> float:
        """See `language_models.merge_gap`."""
        from stages.tasks.language_models import merge_gap

        return merge_gap(base, tuned, self.asked(rows)[0])

    def baseline(
        self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path, decision: Any
    ) -> Sequence[str] | None:
        """Return what the base model says of the test rows, with the tokens of the tuned one; or only what it answers.

        `few_shot`: with the turns of the nearest training rows before; `nearest_answer`: the nearest one's own answer.
        """
        from stages.tasks import generation
        from stages.tasks.language_models import ChatTokens, load, outputs

        train, _, test = parts
        if name != "base_model" and not generation.asked(test, decision.rows).any():
            return None
        if name == "nearest_answer":
            return generation.nearest_answers(train, test, decision)
        examples = generation.examples(train, test) if name == "few_shot" else None
        answers = generation.answers(base, tuned, test, decision, examples)
        if name == "few_shot":
            return [json.dumps(answer) for answer in answers]
        numbers = outputs(load(base), ChatTokens(tuned), self.asked(test)[0])
        return predicted.joined(self.decide(numbers, None)["prediction"], answers)

    def text_numbers(self, texts: "DataFrame", base: Path, tuned: Path) -> tuple[np.ndarray, np.ndarray] | None:
        """See `language_models.of_texts`; None where there are no texts."""
        from stages.tasks.language_models import ChatTokens, load, of_texts

        known, tokens = texts["text"].drop_nulls().to_list(), ChatTokens(tuned)
        return (of_texts(load(base), tokens, known), of_texts(load(tuned), tokens, known)) if known else None

    def side_by_side(self, rows: "DataFrame", baselines: "Mapping[str, Series]") -> "dict[str, DataFrame]":
        """Return `conversations`: the question, the row's own answer, and what each model says, of rows asked."""
        from stages.tasks.generation import side_by_side

        return {"conversations": side_by_side(rows, baselines)}
