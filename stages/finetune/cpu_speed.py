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


def drop(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Return `x` (any shape, floating point) with a share of `rate` set to 0 and the rest scaled up to match."""
    dropped = min(round(rate * STEPS), STEPS - 1)
    if not dropped:
        return x
    # 64 random bits at a time, read as four numbers of 16 bits from -32,768 on: [n/4] int64 → x's shape int16
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    numbers = bits.view(torch.int16)[: x.numel()].view(x.shape)
    # A comparison that writes x's type: twice as fast as one to bool and a conversion.
    mask = torch.ge(numbers, dropped - STEPS // 2, out=torch.empty_like(x, memory_format=torch.contiguous_format))
    return x * mask.mul_(STEPS / (STEPS - dropped))


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
    # By default glibc returns large blocks to the system as soon as a step frees them, and gets them back for the next
    # one page by page, each filled with zeros: with MiniLM 25,000 page faults and a tenth of the step's time.
    with suppress(OSError, AttributeError):  # other libraries have no use for these settings
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, at the most that glibc takes
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never
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


@contextmanager
def trimmed_vocabulary(model: PreTrainedModel, tokens: torch.Tensor) -> Iterator[None]:
    """Leave `model` only the embeddings of `tokens` (int64, in any order) until the block ends."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad or embedding.max_norm or tied:
        yield  # they do not train, or are of a kind of their own
        return
    table, padding = embedding.weight, embedding.padding_idx
    tokens = tokens if padding is None else torch.cat([tokens, torch.tensor([padding])])
    tokens = torch.unique(tokens).to(table.device)
    row_of = torch.full((len(table),), -1, device=table.device)  # a token without a row is an error, not another token
    row_of[tokens] = torch.arange(len(tokens), device=table.device)
    embedding.weight = nn.Parameter(table.detach()[tokens])
    embedding.padding_idx = None if padding is None else int(row_of[padding])
    hook = embedding.register_forward_pre_hook(lambda _, ids: (row_of[ids[0]],))
    try:
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            table[tokens] = embedding.weight
        embedding.weight, embedding.padding_idx = table, padding
