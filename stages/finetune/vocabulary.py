"""Train only those rows of the embedding table whose tokens occur in the data.

A table of 30,000 tokens is half of a small model, and each step fills, clips and applies a gradient that is zero for
every token which does not occur. The result is that of the whole table, but that weight decay leaves the rows alone
which nothing was learned of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel


class CutEmbedding(nn.Embedding):
    """An embedding that has rows for some tokens alone, and is asked by the old token ids."""

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
def cut_to(model: PreTrainedModel, tokens: torch.Tensor) -> Iterator[None]:
    """Leave `model` the embeddings of `tokens` (int64, in any order) until the block ends; then all are there again."""
    whole = model.get_input_embeddings()
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is whole.weight
    if type(whole) is not nn.Embedding or not whole.weight.requires_grad or whole.max_norm is not None or tied:
        yield  # they do not train, or are of a kind of their own
        return
    special = [] if whole.padding_idx is None else [whole.padding_idx]
    tokens = torch.unique(torch.cat([tokens, torch.tensor(special, dtype=torch.int64)]))
    cut = CutEmbedding(whole, tokens).to(whole.weight.device)
    model.set_input_embeddings(cut)
    try:
        yield
    finally:
        with torch.no_grad():
            whole.weight[tokens.to(whole.weight.device)] = cut.weight
        model.set_input_embeddings(whole)
