"""Language models: what is learnt are the answers of conversations, spelled by the base model's own chat template.

A label is a conversation (`stages/tasks/conversations.py`), and a row's text what comes before the first answer that is
learnt. Of each row the model says how likely it finds its answers, as JSON: `{"nll": 41.7, "tokens": 24, …}`; some it
answers itself: `"answer": "Until six.", "finish": "stop"`.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stages.tasks import predicted
from stages.tasks.answering import AnsweringTask
from stages.tasks.base import Answer
from stages.tasks.conversations import (
    asked,
    canonical,
    columns,
    each,
    first_question,
    kinds_of,
    masked,
    of_row,
    read,
    waiting,
)
from stages.tasks.evidence import Evidence, ratio
from stages.tasks.predicted import NUMBERS, AnswerDecision
from stages.tasks.training import Space

if TYPE_CHECKING:
    from polars import DataFrame, Series
    from transformers import PreTrainedTokenizerBase

    from stages.common.params import CleanParams, EvaluateParams, FinetuneParams, IngestParams, TokenizeParams
    from stages.common.text.cleaning import TextCleaning


class CausalLm(AnsweringTask):
    """See the module."""

    name, adapts = "causal-lm", "CAUSAL_LM"
    Decision = AnswerDecision
    signature: ClassVar = {
        **{"answer": "string?", "finish": "string?", "new_tokens": "double?"},
        **{"loss": "double?", "perplexity": "double?", "tokens": "double", "abstained": "boolean"},
    }
    example: ClassVar = ['[{"role":"user","content":"Are you open?"},{"role":"assistant","content":"Until six."}]']
    width, several_targets, sums_rows, estimates_memory, part_rows = len(NUMBERS), True, True, True, 64

    # ── ingest, clean: targets ───────────────────────────────────────────────────────────────────────────────────────
    def columns_of(self, shape: str, text: str | None, label: str | None) -> tuple[dict[str, str], set[str]]:
        """See `conversations.columns`."""
        return columns(shape, text, label)

    def parse_target(self, cell: str, params: "IngestParams") -> str:
        """Return the conversation that cells of a row hold, as JSON by what they hold; Refused, if it is none."""
        return of_row(json.loads(cell))

    def texts(self, labels: "Series") -> "Series":
        """Return what comes before the first answer that is learnt, a message a line."""
        return _each(labels, lambda messages: "\n".join(asked(messages)))

    def said(self, labels: "Series") -> "Series":
        """Return all that is said, a message a line."""
        return _each(labels, lambda messages: "\n".join(part["content"] for part in messages))

    def cleaned(self, labels: "Series", cleaning: "TextCleaning") -> "Series":
        """Return conversations in which personal data are masked, if they are to be; code and Markdown stay."""
        return _each(labels, partial(masked, cleaning=cleaning)) if cleaning.pii else labels

    def grouped(self, records: "DataFrame", params: "CleanParams") -> "DataFrame":
        """Return records in groups of nearly the same first question: it must not be in two splits."""
        from stages.tasks.same_prompts import grouped

        questions = _each(records["label"], lambda messages: first_question(messages).casefold())
        cleaned, _ = params.text_cleaning.column(questions)
        return grouped(records, cleaned.fill_null(questions), params.near_duplicates)

    def names(self, label: str) -> list[str]:
        """Return nothing: a conversation is of no class."""
        return []

    def strata(self, labels: "Series", params: "CleanParams") -> "Series":
        """Return one stratum for all rows."""
        return _each(labels, lambda _: "conversations")

    # ── tokenize, finetune ───────────────────────────────────────────────────────────────────────────────────────────
    def wording(self, tokenizer: "PreTrainedTokenizerBase", params: "TokenizeParams") -> dict[str, Any]:
        """See `templates.wording`."""
        from stages.tasks.templates import wording

        return wording(tokenizer, params.too_long, params.train_on)

    def encode(
        self, rows: "DataFrame", tokenizer: "PreTrainedTokenizerBase", space: Space, params: "TokenizeParams"
    ) -> "tuple[DataFrame, DataFrame, dict[str, Any]]":
        """See `templates.encoded`."""
        from stages.tasks.templates import Template, encoded

        return encoded(rows, Template(tokenizer, space, space["max_length"]))

    def build_model(self, base: Path, space: Space, params: "FinetuneParams", seed: int) -> Any:
        """Return the base model itself."""
        from stages.tasks.inference import wants_bf16
        from stages.tasks.language_models import base_model

        adapted = params.strategy not in ("full", "partial", "head")
        return base_model(base, params.dropout, seed, adapted, wants_bf16(params.bf16))

    def collator(self, tokenizer: "PreTrainedTokenizerBase", packed: bool = False) -> Any:
        """See `language_models.Collator`."""
        from stages.tasks.language_models import Collator, pad_id

        return Collator(pad_id(tokenizer), packed)

    def packs(self, model: Any, params: "FinetuneParams") -> bool:
        """See `language_models.packs`."""
        from stages.tasks.language_models import packs

        return packs(model, params.packing)

    def items(self, targets: Any) -> int:
        """Return how many tokens are learnt."""
        from stages.tasks.language_models import learnt_ids

        return len(learnt_ids(targets))

    def loss_function(self, params: "FinetuneParams", space: Space, targets: Sequence[Any]) -> Any:
        """Return the cross entropy of each learnt token, from logits [m x V] and labels [b x s]."""
        from stages.tasks.language_models import learnt_ids
        from stages.tasks.losses import for_classes

        losses = for_classes(params, {}, ())
        return lambda logits, labels: losses(logits, learnt_ids(labels))

    def guessing(self, targets: Sequence[Any], config: Any) -> Any:
        """Return the logits of one token, of which any would do as target."""
        import torch

        return torch.zeros(1, config.get_text_config().vocab_size), torch.zeros(1, 2, dtype=torch.int64)

    def scored(self, logits: Any, targets: Any) -> Any:
        """See `language_models.scores_of_rows`."""
        from stages.tasks.language_models import scores_of_rows

        return scores_of_rows(logits, targets)

    def mean_loss(self, losses: Any, kept: np.ndarray, targets: np.ndarray) -> float:
        """Return the loss of a learnt token."""
        return float(kept[:, 0].sum() / kept[:, 1].sum())

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return loss, perplexity and foreseen tokens of numbers of rows [n x 3]."""
        scores = predicted.token_scores(np.append(logits.sum(axis=0), 0))
        return {name: float(value) for name, value in scores.items() if name != "bits_per_byte"}

    def finished(self, model: Any, space: Space, folder: Path) -> None:
        """Write beside the model what it takes to make the same tokens of a conversation."""
        from stages.tasks.templates import write_words

        write_words(space, folder)

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def asked(self, rows: "DataFrame") -> tuple[list[str], list[str] | None]:
        """Return whole conversations."""
        return rows["label"].to_list(), None

    def prepared(self, texts: list[str], cleaning: "TextCleaning") -> list[str]:
        """Return the conversations of a request, each JSON, as labels; Refused if one is none."""
        import polars as pl

        labels = pl.Series(each(_of_request, texts), dtype=pl.String)
        return self.cleaned(labels, cleaning).to_list()

    def profiled(self, texts: "Series") -> "Series":
        """Return what comes before the first answer that is learnt."""
        return self.texts(texts)

    def fit_decision(
        self, params: "EvaluateParams", labels: Sequence[str], outputs: np.ndarray, undecided: Any
    ) -> tuple[AnswerDecision, None]:
        """Return how answers are generated, as params say."""
        return AnswerDecision(task=self.name, kind=params.answer, **params.generation.model_dump()), None

    def decide(self, outputs: np.ndarray, decision: Any, threshold: float | None = None) -> dict[str, Any]:
        """Return the numbers of rows as JSON, and as confidence the (geometric) mean probability of learnt tokens."""
        texts = [json.dumps(dict(zip(NUMBERS, map(predicted.short, row), strict=True))) for row in outputs.tolist()]
        sure = np.exp(-ratio(outputs[:, 0], outputs[:, 1]))
        return {"prediction": texts, "confidence": sure, "abstained": sure < (threshold or 0)}

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return loss a token, perplexity, and how many tokens the answers of each conversation have."""
        table = self.table(outputs, decision, threshold)
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def table(self, outputs: np.ndarray, decision: Any, threshold: float | None) -> dict[str, Any]:
        """Return `loss`, `perplexity`, `tokens`, `abstained`."""
        losses, tokens = ratio(outputs[:, 0], outputs[:, 1]), outputs[:, 1]
        known = {"loss": losses, "perplexity": np.exp(losses)}
        rounded = {
            name: [predicted.short(value) if count else None for value, count in zip(values, tokens, strict=True)]
            for name, values in known.items()
        }
        abstained = self.decide(outputs, decision, threshold)["abstained"].tolist()
        return {**rounded, "tokens": tokens.tolist(), "abstained": abstained}

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return the loss of a token in each row that has some."""
        known = outputs[outputs[:, 1] > 0]
        return {"losses": (known[:, 0] / known[:, 1], None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def evidence(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str] | None = None) -> Evidence:
        """See `predicted.evidence`."""
        return predicted.evidence(rows["label"], predicted.read(predictions))

    def slices(self, labels: "Series") -> list[list[str]]:
        """Return by how many answers a conversation has, and whether a system message begins it."""
        return [kinds_of(json.loads(label)) for label in labels]

    def is_correct(self, rows: "DataFrame", predictions: "DataFrame") -> np.ndarray:
        """Return whether half of a row's tokens, or more, are those that the model thinks likeliest."""
        numbers = predicted.numbers(predicted.read(predictions))
        return np.asarray(2 * numbers[:, 2] >= numbers[:, 1])

    def comparable(self, first: "DataFrame", second: "DataFrame", metric: str) -> str | None:
        """Return why losses a token of other tokens say nothing of each other; None: they are the same tokens."""
        tokens = [predicted.numbers(predicted.read(some))[:, 1].sum() for some in (first, second)]
        if metric not in ("nll", "perplexity", "token_accuracy") or tokens[0] == tokens[1]:
            return None
        counts = " and ".join(f"{count:,.0f}" for count in tokens)
        return f"the same answers are {counts} tokens: compare by bits_per_byte, or by a score of what is generated"

    def agreeing(self, first: "DataFrame", second: "DataFrame") -> np.ndarray:
        """See `predicted.agreeing`."""
        return predicted.agreeing(predicted.read(first), predicted.read(second))

    def readable(self, rows: "DataFrame") -> "DataFrame":
        """Return rows whose text is the last question, the label its answer, and the prediction the loss in words."""
        import polars as pl

        last = [predicted.questions_and_answers(label)[-1] for label in rows["label"]]
        questions, answers = (pl.Series([pair[side] for pair in last], dtype=pl.String) for side in (0, 1))
        losses = self.table(predicted.numbers(predicted.read(rows)), None, None)["loss"]
        words = pl.Series([f"{loss:.2f} a token" for loss in losses], dtype=pl.String)
        return rows.with_columns(text=questions, label=answers, prediction=words)

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: Any) -> np.ndarray:
        """Return the mean probability of learnt tokens: an answer that nothing foretells may be none."""
        return np.asarray(np.exp(-ratio(outputs[:, 0], outputs[:, 1])))


def _of_request(text: str) -> str:
    return canonical(waiting(read("messages", {"answer": text})), may_wait=True)


def _each(labels: "Series", of: Any) -> "Series":
    """Return the text of each conversation, null where there is none."""
    import polars as pl

    found = [None if label is None else of(json.loads(label)) for label in labels]
    return pl.Series(labels.name, found, dtype=pl.String)


TASK = CausalLm()
