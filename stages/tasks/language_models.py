"""A language model on the tokens that are learnt: batches, packed or padded, losses, scores, and answers about rows.

Its output layer, half of the work of a small model, is computed where the next token is learnt, and nowhere else.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from stages.tasks.base import Refused
from stages.tasks.conversations import Message, each, waits
from stages.tasks.evidence import ratio
from stages.tasks.inference import ADAPTER, load_model, longest_first
from stages.tasks.templates import FILE, Template, Tokens

IGNORED = -100  # a label that is not learnt
ALIKE = 1e-4  # by which logits of packed rows may differ from those of rows alone
SCORED = 4  # numbers of a row: the loss of its learnt tokens, how many they are, how many are foreseen, bytes
BATCH = 64  # rows whose numbers are asked for at once
LONGEST = 512  # tokens of a piece of plain text
MEASURED = 64  # conversations by which a merged adapter is compared
PORTION = 4096  # tokens that are scored at once: each may have 50,000 logits
DROPOUTS = ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "hidden_dropout_prob")


def base_model(folder: Path, dropout: float | None, seed: int, frozen: bool, bf16: bool) -> PreTrainedModel:
    """Return a language model to train, in float32; `dropout` replaces its own rates, None keeps them.

    One that stays `frozen` is in bfloat16, if products are (`bf16`) and its own weights are: that is exact.
    """
    config = AutoConfig.from_pretrained(folder)
    dtype = torch.bfloat16 if frozen and bf16 and config.dtype == torch.bfloat16 else torch.float32
    for name in DROPOUTS if dropout is not None else ():
        if getattr(config, name, None) is not None:
            setattr(config, name, dropout)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, use_safetensors=True)


class Collator:
    """Rows of token ids to a batch: padded at the end, or packed, one after the other in one row.

    `labels` are the ids that are learnt, and -100 elsewhere; `logits_to_keep`, bool like `input_ids`, says after which
    tokens the next one is learnt. A row without labels stands in for one, and has nothing to learn.
    """

    def __init__(self, pad: int, packed: bool = False) -> None:
        self._pad, self._packed = pad, packed

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch [b x s], or [1 x n], int64."""
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        masks = [torch.tensor(row.get("labels") or [0] * len(row["input_ids"])).bool() for row in rows]
        if self._packed:
            places = torch.cat([torch.arange(len(row)) for row in ids])
            masks = [mask & (torch.arange(len(mask)) > 0) for mask in masks]  # nothing comes before a first token
            # without a mask, and with places that begin anew, transformers keeps the rows apart
            batch: dict[str, Any] = {"input_ids": torch.cat(ids)[None], "position_ids": places[None]}
            learnt = torch.cat(masks)[None]
        else:
            longest = max(map(len, ids))
            padded = [functional.pad(row, (0, longest - len(row)), value=self._pad) for row in ids]
            there = [functional.pad(torch.ones_like(row), (0, longest - len(row))) for row in ids]
            batch = {"input_ids": torch.stack(padded), "attention_mask": torch.stack(there)}
            learnt = torch.stack([functional.pad(mask, (0, longest - len(mask))) for mask in masks])
        batch |= {"logits_to_keep": functional.pad(learnt[:, 1:], (0, 1)), "use_cache": False}
        if any("labels" in row for row in rows):
            batch["labels"] = batch["input_ids"].where(learnt, IGNORED)
        return batch


def learnt_ids(labels: torch.Tensor) -> torch.Tensor:
    """Return the ids that are learnt [m], in the order of the logits that `logits_to_keep` keeps."""
    following = labels[:, 1:]
    return following[following != IGNORED]


def scores_of_rows(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return loss, learnt tokens and foreseen tokens of each row [b x 3] float64, of logits [m x V], labels [b x s]."""
    ids, row = learnt_ids(labels), (labels[:, 1:] != IGNORED).nonzero()[:, 0]
    losses = functional.cross_entropy(logits.float(), ids, reduction="none").double()
    parts = torch.stack([losses, torch.ones_like(losses), (logits.argmax(dim=-1) == ids).double()], dim=1)  # [m x 3]
    return torch.zeros(len(labels), 3, dtype=torch.float64, device=parts.device).index_add_(0, row, parts)


@torch.no_grad()
def keeps_apart(model: Any) -> bool:
    """Return whether two rows packed into one get the logits that each gets alone (within 1e-4, in float32).

    Models whose layers run over the borders of rows (linear attention, convolutions) do not, nor do some by a mistake.
    """
    training, device = model.training, next(model.parameters()).device
    vocabulary = model.config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(vocabulary, (length,), generator=draw).tolist() for length in (7, 12)]
    collators = {packed: Collator(0, packed) for packed in (False, True)}

    def logits(batch: dict[str, Any]) -> torch.Tensor:
        ids = {name: batch[name].to(device) for name in ("input_ids", "position_ids") if name in batch}
        return model(**ids, use_cache=False).logits[0].float().cpu()

    try:
        model.eval()
        alone = torch.cat([logits(collators[False]([{"input_ids": row}])) for row in rows])
        packed = logits(collators[True]([{"input_ids": row} for row in rows]))
    except (ValueError, TypeError, RuntimeError, IndexError):  # of models that take no places
        return False
    finally:
        model.train(training)
    return bool(torch.allclose(alone, packed, rtol=0, atol=ALIKE))


def packs(model: Any, setting: Any) -> bool:
    """Return whether to pack: as set, or on a GPU; an AttuneError if it is set, and the model mixes packed rows."""
    if setting is False or (setting == "auto" and not torch.cuda.is_available()):
        return False
    if keeps_apart(model):
        return True
    if setting == "auto":
        print("  packing is off: this base model mixes rows that are packed together", flush=True)
        return False
    from stages.common.errors import AttuneError

    what = f"finetune.packing is true, but a model of the type {model.config.model_type} mixes rows that are packed"
    raise AttuneError(what, "set finetune.packing: auto, or false")


class Scored(nn.Module):
    """A language model whose outputs are numbers of rows [b x 4]: those of `scores_of_rows`, and the bytes learnt."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, sizes: torch.Tensor
    ) -> SimpleNamespace:
        """Take token ids [b x s], which are there, which are learnt (-100: not), and the bytes of rows [b]."""
        found, step = [], max(1, PORTION // input_ids.shape[1])
        for start in range(0, len(input_ids), step):
            rows = slice(start, start + step)
            longest = int(attention_mask[rows].sum(dim=1).max())
            ids, there, wanted = (part[rows, :longest] for part in (input_ids, attention_mask, labels))
            keep = functional.pad(wanted[:, 1:] != IGNORED, (0, 1))
            logits = self.model(input_ids=ids, attention_mask=there, logits_to_keep=keep, use_cache=False).logits
            found.append(scores_of_rows(logits, wanted))
        return SimpleNamespace(logits=torch.cat([torch.cat(found), sizes.double()[:, None]], dim=1))


def load(folder: Path, adapter: Path | None = None) -> Scored:
    """Return a saved language model in float32, with its adapter if it has one, or with that of another folder."""
    network = load_model(folder, AutoModelForCausalLM)
    if adapter:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, str(adapter))
    return Scored(network).eval()


class ChatTokens:
    """Conversations, each the JSON of a label, to what `Scored` takes; as TransformersTokens of serving."""

    def __init__(self, model: Path) -> None:
        tokenizer, config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model).get_text_config()
        words = json.loads((model / FILE).read_text(encoding="utf-8"))
        self.template, self._pad = Template(tokenizer, words, words["max_length"]), pad_id(tokenizer)
        self.context = int(getattr(config, "max_position_embeddings", None) or 2 * words["max_length"])

    def encode(self, texts: list[str], pairs: list[str] | None = None) -> dict[str, list[Any]]:
        """Return token ids, which of them are learnt, and the bytes of the answers; Refused, a ValueError, if none."""
        columns: dict[str, list[Any]] = {"input_ids": [], "learnt": [], "sizes": []}
        for found in each(self._tokens, [json.loads(text) for text in texts]):
            for column, value in zip(columns.values(), (found.ids, found.learnt, found.bytes), strict=True):
                column.append(value)
        return columns

    def question(self, messages: Sequence[Message], most: int = 1) -> list[int]:
        """Return the tokens of a conversation that waits for an answer; Refused, if one of so many has no room."""
        ids = self.template.question(messages)
        if len(ids) + most > self.context:
            what = f"{len(ids):,} tokens and an answer of {most:,} are more than {self.context:,}"
            raise Refused(what, "too_long")
        return ids

    def _tokens(self, messages: list[Message]) -> Tokens:
        if not waits(messages):
            return self.template.tokens(messages)
        self.question(messages)
        return Tokens([0], [0], 0, 0)  # of an answer that is waited for nothing is known: one token stands in

    def pad(self, columns: dict[str, list[Any]]) -> dict[str, np.ndarray]:
        """Return columns of one batch as arrays [b x s] int64."""
        rows = zip(columns["input_ids"], columns["learnt"], strict=True)
        batch = Collator(self._pad)([{"input_ids": ids, "labels": marks} for ids, marks in rows])
        arrays = {name: batch[name].numpy() for name in ("input_ids", "attention_mask", "labels")}
        return {**arrays, "sizes": np.array(columns["sizes"], np.int64)}


def pad_id(tokenizer: Any) -> int:
    """Return the id that fills up rows: any would do, as its places are masked, and never those of equal ids."""
    return int(next((token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0))


def outputs(network: Scored, tokens: ChatTokens, texts: list[str]) -> np.ndarray:
    """Return the numbers of conversations [n x 4] float64, those of similar lengths together."""
    return _numbers(network, tokens, tokens.encode(texts))


def merge_gap(base: Path, tuned: Path, texts: list[str]) -> float:
    """Return the largest distance, of conversations, between losses a token by merged weights and by the adapter.

    The adapter is put beside the base's weights; merged ones are others by rounding (peft#2321).
    """
    tokens, texts = ChatTokens(tuned), texts[:MEASURED]
    merged, beside = (outputs(load(*of), tokens, texts) for of in ((tuned,), (base, tuned / ADAPTER)))
    gaps = np.abs(ratio(merged[:, 0], merged[:, 1]) - ratio(beside[:, 0], beside[:, 1]))
    return float(f"{gaps.max():.1e}")


def of_texts(network: Scored, tokens: ChatTokens, texts: list[str]) -> np.ndarray:
    """Return the loss (nats) and bytes of plain texts [n x 2] float64, without templates.

    A long text is read in pieces; the first token of each has nothing before it, and is not counted.
    """
    columns: dict[str, list[Any]] = {"input_ids": [], "learnt": [], "sizes": []}
    owners, longest = [], min(tokens.template.max_length, LONGEST)
    for number, ids in enumerate(tokens.template.tokenizer(texts, add_special_tokens=False)["input_ids"]):
        for start in range(0, len(ids), longest):
            piece = ids[start : start + longest]
            owners.append(number)
            columns["input_ids"].append(piece)
            columns["learnt"].append([0] + [1] * (len(piece) - 1))
            columns["sizes"].append(0)
    result = np.zeros((len(texts), 2))
    np.add.at(result[:, 0], owners, _numbers(network, tokens, columns)[:, 0])
    result[:, 1] = [len(text.encode()) for text in texts]
    return result


def _numbers(network: Scored, tokens: ChatTokens, whole: dict[str, list[Any]]) -> np.ndarray:
    result, device = np.zeros((len(whole["input_ids"]), SCORED)), next(network.parameters()).device
    for rows, columns in longest_first(whole, BATCH):
        batch = {name: torch.from_numpy(part).to(device) for name, part in tokens.pad(columns).items()}
        with torch.inference_mode():
            result[rows] = network(**batch).logits.cpu()
    return result
