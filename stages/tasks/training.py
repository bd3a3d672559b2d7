"""The hooks of `tokenize` and `finetune`: what a model learns of a row, and how it is trained and judged meanwhile.

They are those of a task of one output vector per text or pair of texts; other tasks replace them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from polars import DataFrame, Series
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.params import FinetuneParams, TokenizeParams

Space = Mapping[str, Any]  # what `encoding.json` keeps of the targets: labels and their numbers, mean and deviation, …


class TrainedTask:
    """See the module; `Task` has the other hooks."""

    problem_type: ClassVar[str]  # transformers' name of the loss, for `build_model`
    adapts: ClassVar[str] = "SEQ_CLS"  # peft's name of such models
    estimates_memory: ClassVar[bool] = False  # before the first step: of models that are too large for some machines
    sums_rows: ClassVar[bool] = False  # whether rows have losses of several items, so that a mean of batches is none

    def names_in(self, *labels: "Series") -> list[str]:
        """Return the names of classes that labels hold, in their order."""
        raise NotImplementedError

    def label_space(self, labels: "Series") -> dict[str, Any]:
        """Return what has to be known of the training targets to encode them, JSON-able: the number of each name."""
        names = self.names_in(labels)
        return {"labels": {name: number for number, name in enumerate(names)}} if names else {}

    def wording(self, tokenizer: "PreTrainedTokenizerBase", params: "TokenizeParams") -> dict[str, Any]:
        """Return what else of the tokenizer and params has to be known to read texts as the training does."""
        return {}

    def encode(
        self, rows: "DataFrame", tokenizer: "PreTrainedTokenizerBase", space: Space, params: "TokenizeParams"
    ) -> "tuple[DataFrame, DataFrame, dict[str, Any]]":
        """Return token ids (schema TokenizedRecords), the rows that have none (Rejected), and what is to be reported.

        `space` is that of `label_space`, with `max_length`, the tokens that the model takes at the most, and `pairs`,
        whether training texts are pairs.
        """
        from stages.tasks.tokens import of_texts

        targets = partial(self.targets, space=space)
        return of_texts(rows, targets, tokenizer, space["max_length"], space["pairs"])

    def targets(self, labels: Sequence[str], space: Space) -> list[Any]:
        """Return what the model learns for each label: a class number, a list of 0 and 1, a number."""
        raise NotImplementedError

    def build_model(self, base: Path, space: Space, params: "FinetuneParams", seed: int) -> "PreTrainedModel":
        """Return the base model with a new head, in float32: an output for each name, in their order, or one."""
        from stages.tasks.encoder import with_head

        numbers = space.get("labels", {"value": 0})
        return with_head(base, sorted(numbers, key=numbers.__getitem__), self.problem_type, params.dropout, seed)

    def loss_function(self, params: "FinetuneParams", space: Space, targets: Sequence[Any]) -> Any:
        """Return the function from logits [b x k] float32 and targets [b …] to the loss of each row [b].

        It is asked for with the training targets once. Without gradients, in validation, the plain loss is wanted:
        runs with different losses can be compared by it.
        """
        raise NotImplementedError

    def validation_scores(self, logits: np.ndarray, targets: np.ndarray, space: Space) -> dict[str, float]:
        """Return the scores of one pass over the validation split: all that may pick the epoch to keep."""
        raise NotImplementedError

    def collator(self, tokenizer: "PreTrainedTokenizerBase", packed: bool = False) -> Any:
        """Return the function from rows of token ids to a batch [b x s], padded, or packed into one row [1 x n]."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def packs(self, model: Any, params: "FinetuneParams") -> bool:
        """Return whether training batches are packed; an AttuneError if they are to be, and the model mixes rows."""
        return False

    def items(self, targets: "torch.Tensor") -> int:
        """Return of how many items a batch of targets [b …] has a loss: its rows."""
        return len(targets)

    def guessing(self, targets: Sequence[Any], config: Any) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return the logits of a model that knows nothing, all 0, and targets, of these of the training."""
        import torch

        return torch.zeros(len(targets), config.num_labels), torch.tensor(targets)

    def scored(self, logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        """Return what of a batch's logits is kept of each row [b x k] for `validation_scores`."""
        return logits

    def mean_loss(self, losses: Any, kept: np.ndarray, targets: np.ndarray) -> float:
        """Return the plain loss of a pass over the validation split, of what `scored` has kept [n x k]."""
        import torch

        with torch.no_grad():
            return float(losses(torch.from_numpy(kept).float(), torch.from_numpy(targets)).mean())

    def finished(self, model: Any, space: Space, folder: Path) -> None:
        """Change a trained model in place, before it is saved, so that its outputs are in the units of the data.

        Beside it, in the folder, may be written what has to be known to use it.
        """
