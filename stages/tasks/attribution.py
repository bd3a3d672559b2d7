"""Which words a prediction rests on: integrated gradients (Sundararajan, Taly & Yan 2017) through captum.

What is explained is one number of the task (the log-odds of the predicted label, the value), compared with a text of
as many tokens that says nothing: `[MASK]` where the tokenizer has it, padding otherwise. The values of all tokens add
up to the change in that number.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import regex

from stages.common.digests import hash_order
from stages.common.errors import AttuneError
from stages.common.params.evaluate import Attributions
from stages.common.text.columns import UNSPACED
from stages.tasks.base import Task

if TYPE_CHECKING:
    import torch

DIGITS = 4
TOKENS = 4096  # that go through the model at once
LETTER = rf"(?:(?!{UNSPACED})[\p{{L}}\p{{M}}\p{{N}}])"
UNIT = regex.compile(rf"{LETTER}+(?:['’]{LETTER}+)*|\s+|.", regex.DOTALL)  # words, blanks, and single other characters


@dataclass(frozen=True)
class Attribution:
    """How much each piece of a text speaks for its prediction.

    `pieces` are together the text that was read, each with its share of the whole, -1 to 1: above 0 it speaks for the
    prediction. The sizes sum up to 1; blanks have 0.
    """

    id: str  # of the row
    kind: Literal["error", "sample"]  # a confident error, or one of the sample of other rows
    label: str  # the row's own
    prediction: str  # the label that is explained
    confidence: float | None  # calibrated probability of the prediction, if the task has one
    pieces: list[tuple[str, float]]
    truncated: bool  # the end of the text was cut off, and is not in `pieces`
    delta: float  # how far the integral is from the change that it explains; near 0 if `steps` suffice


def explain(
    model: Path, rows: pl.DataFrame, task: Task, params: Attributions, seed: int
) -> tuple[list[Attribution], str]:
    """Explain the errors whose label fits worst, then a seeded sample of the other rows; say how many, or why none.

    `rows` are test records with the columns of predictions, and `output`: which one of the model is explained.
    """
    wrong = rows.filter(~task.is_correct(rows, rows))
    errors = wrong.sort("label_quality", "id").head(params.errors)
    others = rows.join(errors, on="id", how="anti").sort(hash_order("id", f"{seed} explained"), "id")
    kinds = {"error": errors, "sample": others.head(params.sample)}
    chosen = pl.concat([part.with_columns(kind=pl.lit(kind)) for kind, part in kinds.items()])
    try:
        explained = attributions(model, chosen, task, params.steps)
    except AttuneError as error:
        return [], f"no prediction is explained: {error.what}"
    worst = max((abs(row.delta) for row in explained), default=0.0)
    return explained, f"{len(explained)} predictions explained; the integral is off by {worst:.3f} at most"


def attributions(model: Path, rows: pl.DataFrame, task: Task, steps: int) -> list[Attribution]:
    """Explain the predictions of rows (id, text, text_pair, kind, label, prediction, confidence, output) in float32.

    The integral has so many steps, by Gauss-Legendre quadrature. An AttuneError if the model keeps no embeddings of
    tokens, or its tokenizer does not say where tokens stand.
    """
    import torch
    from transformers import AutoTokenizer

    from stages.tasks.inference import load_classifier

    if rows.is_empty():
        return []
    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.is_fast:
        raise AttuneError(f"the tokenizer {type(tokenizer).__name__} does not say where in a text its tokens stand")
    network = load_classifier(model).to("cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)
    layer = None
    with suppress(AttributeError, NotImplementedError):
        layer = network.get_input_embeddings()
    if layer is None:
        raise AttuneError(f"a {type(network).__name__} has no embeddings of tokens that can be found")
    if rows["text_pair"].count():  # as in batches: a row without its second text has an empty one
        rows = rows.with_columns(pl.col("text_pair").fill_null(""))
    fillers = (tokenizer.mask_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    filler = next(token for token in fillers if token is not None)
    wanted = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    explained = []
    for row in rows.iter_rows(named=True):
        texts = [row["text"]] if row["text_pair"] is None else [row["text"], row["text_pair"]]
        encoded = tokenizer(*texts, truncation=True, return_tensors="pt", **wanted)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        special = encoded.pop("special_tokens_mask").bool()
        batch = encoded.to(network.device)
        ids = batch["input_ids"]
        empty = torch.where(special.to(ids.device), ids, filler)
        target = partial(task.attribution_target, output=row["output"])
        values, delta = _integrated(network, layer, batch, empty, target, steps)
        whole = len(tokenizer(*texts)["input_ids"]) == ids.shape[1]
        pieces: list[tuple[str, float]] = []
        for number, text in enumerate(texts):
            tokens = [
                (start, end, value)
                for (start, end), value, sequence in zip(offsets, values, encoded.sequence_ids(0), strict=True)
                if sequence == number
            ]
            pieces += [("\n", 0.0)] if number else []
            pieces += in_words(text if whole else text[: max((end for _, end, _ in tokens), default=0)], tokens)
        total = sum(abs(value) for _, value in pieces) or 1.0
        explained.append(
            Attribution(
                **{name: row[name] for name in ("id", "kind", "label", "prediction", "confidence")},
                pieces=[(piece, round(value / total, DIGITS)) for piece, value in pieces],
                truncated=not whole,
                delta=round(delta, DIGITS),
            )
        )
    return explained


def _integrated(
    network: Any, layer: Any, batch: Any, empty: "torch.Tensor", target: Callable[..., "torch.Tensor"], steps: int
) -> tuple[list[float], float]:
    """Return each token's part in the target of logits, and how far their sum is from the whole.

    A hook puts the points of the path in the place of the embeddings, so that whatever else a model makes of the ids
    (positions, the last token that is no padding) stays as it is for the text.
    """
    import torch
    from captum.attr import IntegratedGradients

    def explained(embedded: torch.Tensor) -> torch.Tensor:  # [b x s x d] to [b]
        repeated = {name: values.expand(len(embedded), *values.shape[1:]) for name, values in batch.items()}
        hook = layer.register_forward_hook(lambda *_: embedded)
        try:
            logits = network(**repeated).logits.float()
        finally:
            hook.remove()
        return target(logits)

    with torch.no_grad():
        embedded, baseline = layer(batch["input_ids"]), layer(empty)
    result, delta = IntegratedGradients(explained).attribute(
        embedded,
        baselines=baseline,
        n_steps=steps,
        internal_batch_size=max(1, TOKENS // embedded.shape[1]),
        return_convergence_delta=True,
    )
    return result.sum(dim=-1)[0].double().tolist(), float(delta[0])


def in_words(text: str, tokens: Sequence[tuple[int, int, float]]) -> list[tuple[str, float]]:
    """Return pieces that are together the text, each with the sum of its tokens: words, not parts of words.

    A token has start, end and value; the end may be beyond what it shows (blanks before it belong to it).
    """
    values, covered = [0.0] * len(text), [False] * len(text)  # of each character; a token's value is at its first one
    starts = {match.start() for match in UNIT.finditer(text)}
    begin, pending = None, 0.0  # of tokens that show nothing, such as a blank: the next one has it
    for first, end, value in tokens:
        visible = [index for index in range(first, end) if not text[index].isspace()]
        pending += value
        if visible:
            begin = visible[0]
            values[begin] += pending
            pending = 0.0
            covered[begin:end] = [True] * (end - begin)
            starts -= set(range(begin + 1, end))  # a token is never divided
    if begin is not None:
        values[begin] += pending
    bounds = [start for start in sorted(starts) if start == 0 or covered[start] or covered[start - 1]]
    return [(text[start:end], sum(values[start:end])) for start, end in pairwise([*bounds, len(text)])]
