"""Faster training that computes the same: dropout, attention and memory on CPUs, and the vocabulary anywhere.

On a CPU torch draws a random number for each element of a dropout mask one by one, and its fused attention is several
times slower in the backward pass than plain matrix products. While a model trains, masks come from 16 random bits an
element, and attention is written out. The result is the same but for rounding (of the rate, to 1/65,536).

A table of 30,000 token embeddings is half of a small model, and each step fills, clips and applies a gradient that is
zero for every token that does not occur. So only the rows of tokens that occur in the data train. The result is that of
the whole table, but that weight decay leaves the other rows alone.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

ATTENTION = "attune_cpu"  # the name under which transformers finds `attention`
STEPS = 2**16  # a rate is a number of these
LONG = 256  # tokens from which fused attention without dropout is as fast, and needs less memory
CHANGING = ("position_bias", "softcap", "cache")  # arguments that change what attention computes


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropped: int) -> torch.Tensor:
        # 64 random bits at a time, read as four numbers of 16 bits from -32,768 on: [n/4] int64 → x's shape int16
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        numbers = bits.view(torch.int16)[: x.numel()].view(x.shape)
        # A comparison that writes x's type: twice as fast as one to bool and a conversion.
        mask = torch.ge(numbers, dropped - STEPS // 2, out=torch.empty_like(x, memory_format=torch.contiguous_format))
        mask.mul_(STEPS / (STEPS - dropped))
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (mask,) = ctx.saved_tensors
        return gradients[0] * mask, None


def drop(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Return `x` (any shape, floating point) with a share of `rate` set to 0 and the rest scaled up to match."""
    dropped = min(round(rate * STEPS), STEPS - 1)
    return _Dropout.apply(x, dropped) if dropped else x  # type: ignore[no-untyped-call]


class FastDropout(nn.Dropout):
    """`nn.Dropout` with cheaper random numbers."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Drop while training, else return the input."""
        return drop(input, self.p) if self.training else input


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return softmax(query · keyᵀ · scaling + mask) · value as [b x s x heads x d], written out.

    Query, key and value are [b x heads x s x d]. `attention_mask` [b x 1 x s x s] float32 is added to the scores: 0, or
    the least number at padding. `scaling` is that of the scores, by default 1/√d, and `dropout` a rate on the weights.
    `others` is what only some models pass; if it changes the result, torch's fused attention computes it.
    """
    causal = getattr(module, "is_causal", False) or others.get("is_causal")
    plain = key.shape[1] == query.shape[1] and not causal and all(others.get(name) is None for name in CHANGING)
    if not (module.training and plain) or (key.shape[2] > LONG and not dropout):
        mask = attention_mask if attention_mask is None else attention_mask.to(query.dtype)
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **others)
    scores = query @ key.transpose(2, 3)  # [b x heads x s x s]
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The float32 mask makes the scores float32, whose softmax is twice as fast on a CPU as that of bfloat16.
    scores = scores.float() * factor if attention_mask is None else torch.add(attention_mask, scores, alpha=factor)
    weights = drop(scores.softmax(dim=-1).to(value.dtype), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


@contextmanager
def fast_on_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` (or peft's, around it) use the dropout and the attention of this module until the block ends."""
    _keep_memory()
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    swapped = [module for module in model.modules() if type(module) is nn.Dropout]
    for module in swapped:
        module.__class__ = FastDropout
    original = model.config._attn_implementation
    if original == "sdpa":
        with suppress(ValueError, AttributeError):  # of models that take none by name
            model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        for module in swapped:
            module.__class__ = nn.Dropout
        if model.config._attn_implementation == ATTENTION:
            model.set_attn_implementation(original)


def _keep_memory() -> None:
    """Tell glibc to keep freed memory for the next step, which asks for the same again.

    By default glibc returns such large blocks to the system, which hands them back page by page, each filled with
    zeros: with MiniLM 25,000 page faults and a tenth of the step's time.
    """
    with suppress(OSError, AttributeError):  # other libraries have no use for these settings
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, at the most that glibc takes
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never


class TrimmedEmbedding(nn.Embedding):
    """An embedding with rows for some tokens alone, which still takes the old token ids."""

    row_of: torch.Tensor

    def __init__(self, whole: nn.Embedding, tokens: torch.Tensor) -> None:
        """Take the rows `tokens` [n] int64, ascending, from `whole`."""
        row_of = torch.full((whole.num_embeddings,), -1)  # a token without a row is an error, not another token
        row_of[tokens] = torch.arange(len(tokens))
        padding = None if whole.padding_idx is None else int(row_of[whole.padding_idx])
        super().__init__(len(tokens), whole.embedding_dim, padding, _weight=whole.weight.detach()[tokens].clone())
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the vectors of token ids [b x s] int64 as [b x s x d]."""
        return super().forward(self.row_of[input])


@contextmanager
def trimmed_vocabulary(model: PreTrainedModel, tokens: torch.Tensor) -> Iterator[None]:
    """Leave `model` only the embeddings of `tokens` (int64, in any order) until the block ends."""
    whole, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and output.weight is whole.weight
    if type(whole) is not nn.Embedding or not whole.weight.requires_grad or whole.max_norm is not None or tied:
        yield  # they do not train, or are of a kind of their own
        return
    special = [] if whole.padding_idx is None else [whole.padding_idx]
    tokens = torch.unique(torch.cat([tokens, torch.tensor(special, dtype=torch.int64)]))
    trimmed = TrimmedEmbedding(whole, tokens).to(whole.weight.device)
    model.set_input_embeddings(trimmed)
    try:
        yield
    finally:
        with torch.no_grad():
            whole.weight[tokens.to(whole.weight.device)] = trimmed.weight
        model.set_input_embeddings(whole)
