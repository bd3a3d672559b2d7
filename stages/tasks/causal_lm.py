"""Language models: what is learnt are the answers of conversations, spelled by the base model's own chat template.

A label is a conversation (`stages/tasks/conversations.py`), and a row's text what comes before the first answer that is
learnt. Of each row the model says how likely it finds its answers, as JSON: `{"nll": 41.7, "tokens": 24, …}`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stages.tasks.base import Answer, Refused, Task
from stages.tasks.conversations import BAD, Message, asked, canonical, columns, first_question, kinds_of, read
from stages.tasks.evidence import Scores, ratio
from stages.tasks.training import Space

if TYPE_CHECKING:
    from polars import DataFrame, Series
    from transformers import PreTrainedTokenizerBase

    from stages.common.params import CleanParams, FinetuneParams, IngestParams, TokenizeParams
    from stages.common.text.cleaning import TextCleaning

NUMBERS = ("nll", "tokens", "foreseen", "bytes")  # of a row: the model's outputs, in their order
DIGITS = 6  # significant ones, of a loss in float32


class CausalLm(Task):
    """See the module."""

    name, adapts = "causal-lm", "CAUSAL_LM"
    signature: ClassVar = {"loss": "double", "perplexity": "double", "tokens": "double", "abstained": "boolean"}
    example: ClassVar = ['[{"role":"user","content":"Are you open?"},{"role":"assistant","content":"Until six."}]']
    width, several_targets, sums_rows, estimates_memory = len(NUMBERS), True, True, True

    # ── ingest, clean: targets ───────────────────────────────────────────────────────────────────────────────────────
    def columns_of(self, shape: str, text: str | None, label: str | None) -> tuple[dict[str, str], set[str]]:
        """See `conversations.columns`."""
        return columns(shape, text, label)

    def parse_target(self, cell: str, params: "IngestParams") -> str:
        """Return the conversation that cells of a row hold, as JSON by what they hold; Refused, if it is none."""
        cells = json.loads(cell)
        shape, row = cells.pop("shape"), cells.pop("row")
        try:
            return canonical(read(shape, cells))
        except Refused as refusal:
            at = f"row {row:,}: " if refusal.rule == BAD else ""  # such can be mended
            raise Refused(f"{at}{refusal}", refusal.rule) from None

    def texts(self, labels: "Series") -> "Series":
        """Return what comes before the first answer that is learnt, a message a line."""
        return _each(labels, lambda messages: "\n".join(asked(messages)))

    def said(self, labels: "Series") -> "Series":
        """Return all that is said, a message a line."""
        return _each(labels, lambda messages: "\n".join(part["content"] for part in messages))

    def cleaned(self, labels: "Series", cleaning: "TextCleaning") -> "Series":
        """Return conversations in which personal data are masked, if they are to be; code and Markdown stay."""
        if not cleaning.pii:
            return labels
        import polars as pl

        from stages.common.text.pii import mask

        def masked(messages: list[Message]) -> str:
            texts = pl.Series([part["content"] for part in messages])
            pairs = zip(messages, mask(texts, cleaning.pii, cleaning.phone_region), strict=True)
            return canonical([{**part, "content": text} for part, text in pairs])

        return _each(labels, masked)

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
        """See `templates.wording`; an AttuneError if the base model has no chat template or end."""
        from stages.common.errors import AttuneError
        from stages.tasks.templates import wording

        try:
            return wording(tokenizer, params.too_long, params.train_on)
        except ValueError as error:
            what, _, fix = str(error).partition(": ")
            raise AttuneError(f"the base model's tokenizer cannot be used for conversations: {what}", fix) from None

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
        sums = np.append(logits.sum(axis=0), 0)
        return {name: float(value) for name, value in self.scores(sums).items() if name != "bits_per_byte"}

    def finished(self, model: Any, space: Space, folder: Path) -> None:
        """Write beside the model what it takes to make the same tokens of a conversation."""
        from stages.tasks.templates import FILE

        words = {name: space[name] for name in ("max_length", "too_long", "train_on", "template", "ends")}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def load(self, model: Path) -> Any:
        """See `language_models.Scored`."""
        from stages.tasks.language_models import load

        return load(model)

    def tokens(self, model: Path) -> Any:
        """See `language_models.ChatTokens`."""
        from stages.tasks.language_models import ChatTokens

        return ChatTokens(model)

    def asked(self, rows: "DataFrame") -> tuple[list[str], list[str] | None]:
        """Return whole conversations."""
        return rows["label"].to_list(), None

    def prepared(self, texts: list[str], cleaning: "TextCleaning") -> list[str]:
        """Return the conversations of a request, each JSON, as labels; Refused if one is none."""
        import polars as pl

        labels = pl.Series([canonical(read("messages", {"answer": text})) for text in texts], dtype=pl.String)
        return self.cleaned(labels, cleaning).to_list()

    def profiled(self, texts: "Series") -> "Series":
        """Return what comes before the first answer that is learnt."""
        return self.texts(texts)

    def decide(self, outputs: np.ndarray, decision: Any, threshold: float | None = None) -> dict[str, Any]:
        """Return the numbers of rows as JSON, and as confidence the (geometric) mean probability of learnt tokens."""
        texts = [json.dumps(dict(zip(NUMBERS, map(_short, row), strict=True))) for row in outputs.tolist()]
        sure = np.exp(-ratio(outputs[:, 0], outputs[:, 1]))
        return {"prediction": texts, "confidence": sure, "abstained": sure < (threshold or 0)}

    def answers(self, outputs: np.ndarray, decision: Any, threshold: float | None, top_k: int | None) -> list[Answer]:
        """Return loss a token, perplexity, and how many tokens the answers of each conversation have."""
        table = self.table(outputs, decision, threshold)
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def table(self, outputs: np.ndarray, decision: Any, threshold: float | None) -> dict[str, Any]:
        """Return `loss`, `perplexity`, `tokens`, `abstained`."""
        losses = ratio(outputs[:, 0], outputs[:, 1])
        numbers = {"loss": losses, "perplexity": np.exp(losses), "tokens": outputs[:, 1]}
        abstained = self.decide(outputs, decision, threshold)["abstained"].tolist()
        return {name: [_short(value) for value in values] for name, values in numbers.items()} | {
            "abstained": abstained
        }

    def drift_values(self, outputs: np.ndarray, decision: Any) -> dict[str, tuple[np.ndarray, list[str] | None]]:
        """Return the loss of a token in each row."""
        return {"losses": (ratio(outputs[:, 0], outputs[:, 1]), None)}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def statistics(self, rows: "DataFrame", predictions: "DataFrame", names: Sequence[str]) -> np.ndarray:
        """Return the numbers of rows [n x 4]."""
        return np.array(
            [[json.loads(text)[name] for name in NUMBERS] for text in predictions["prediction"]], np.float64
        )

    def scores(self, sums: np.ndarray) -> Scores:
        """Return loss a token (nats), bits per byte of the answers' UTF-8, perplexity, the share of foreseen tokens.

        Bits per byte compare models whose tokens differ, and leave the tokens that end turns to them.
        """
        nll, tokens, foreseen, size = np.moveaxis(sums, -1, 0)
        loss = ratio(nll, tokens)
        return {
            "nll": loss,
            "bits_per_byte": ratio(nll, size) / np.log(2),
            "perplexity": np.exp(loss),
            "token_accuracy": ratio(foreseen, tokens),
        }

    def slices(self, labels: "Series") -> list[list[str]]:
        """Return by how many answers a conversation has, and whether a system message begins it."""
        return [kinds_of(json.loads(label)) for label in labels]

    def is_correct(self, rows: "DataFrame", predictions: "DataFrame") -> np.ndarray:
        """Return whether half of a row's tokens, or more, are those that the model thinks likeliest."""
        numbers = self.statistics(rows, predictions, ())
        return np.asarray(2 * numbers[:, 2] >= numbers[:, 1])

    def agreeing(self, first: "DataFrame", second: "DataFrame") -> np.ndarray:
        """Return whether losses differ by no more than a hundredth."""
        one, other = (self.statistics(side, side, ())[:, 0] for side in (first, second))
        return np.isclose(one, other, rtol=0.01)

    def baseline(self, name: str, parts: Sequence["DataFrame"], base: Path, tuned: Path) -> Sequence[str] | None:
        """Return what the base model says of the test rows, with the tokens of the tuned one."""
        from stages.tasks.language_models import ChatTokens, load, outputs

        numbers = outputs(load(base), ChatTokens(tuned), self.asked(parts[2])[0])
        return list(self.decide(numbers, None)["prediction"])

    def readable(self, rows: "DataFrame") -> "DataFrame":
        """Return rows whose label is the last answer, and whose prediction is its loss in words."""
        import polars as pl

        answers = _each(rows["label"], lambda messages: str(messages[-1]["content"]))
        losses = self.table(self.statistics(rows, rows, ()), None, None)
        told = [f"{loss:.2f} a token" for loss in losses["loss"]]
        return rows.with_columns(answers, prediction=pl.Series(told, dtype=pl.String))

    def label_quality(self, rows: "DataFrame", outputs: np.ndarray, decision: Any) -> np.ndarray:
        """Return the mean probability of learnt tokens: an answer that nothing foretells may be none."""
        return np.asarray(np.exp(-ratio(outputs[:, 0], outputs[:, 1])))


def _each(labels: "Series", of: Any) -> "Series":
    """Return the text of each conversation, null where there is none."""
    import polars as pl

    found = [None if label is None else of(json.loads(label)) for label in labels]
    return pl.Series(labels.name, found, dtype=pl.String)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


TASK = CausalLm()
