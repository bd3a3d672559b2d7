"""Which weights train, and how the trained model is saved."""

from pathlib import Path

from transformers import PreTrainedModel

from stages.common.params import FinetuneParams


def prepare(model: PreTrainedModel, params: FinetuneParams) -> PreTrainedModel:
    """Return the model (or peft's, around it) with only those weights trainable that the strategy trains."""
    if params.strategy == "head":
        model.base_model.requires_grad_(False)
    return model


def trainable(model: PreTrainedModel) -> int:
    """Return how many weights train."""
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)


def save(model: PreTrainedModel, params: FinetuneParams, folder: Path) -> None:
    """Write the trained model, so that `stages.tasks` loads it again with the same logits."""
    model.save_pretrained(folder)
