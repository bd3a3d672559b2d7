"""Which weights train, and how the trained model is saved."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.strategies import ADAPTERS, PartialOptions
from stages.finetune.layers import encoder_layers
from stages.finetune.objective import Objective


def prepare(model: PreTrainedModel, params: FinetuneParams, max_length: int | None = None) -> PreTrainedModel:
    """Return the model (or peft's, around it) with only those weights trainable that the strategy trains.

    Args:
        model: the base model with its new head; it is changed in place.
        params: the stage's section.
        max_length: tokens of the longest text that may come; a prefix has to fit in beside it.

    Raises:
        AttuneError: if the strategy or its options do not suit this model.
    """
    if params.strategy in ADAPTERS:
        from stages.finetune.adapters import adapted  # peft takes seconds to import

        return adapted(model, params, head_of(model), max_length)
    if params.strategy in ("head", "partial"):
        model.requires_grad_(False)
        parts = [model.get_submodule(name) for name in head_of(model)]
        if params.strategy == "partial":
            parts += _upper_parts(model, params.options)  # type: ignore[arg-type]
        for part in parts:
            part.requires_grad_(True)
    elif params.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def trainable(model: nn.Module) -> int:
    """Return how many weights train."""
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)


def save(model: PreTrainedModel, params: FinetuneParams, folder: Path) -> None:
    """Write the trained model, so that `stages.tasks` loads it again with the same logits.

    An adapter is taken off the model for that: `model` has served its turn.
    """
    if params.strategy in ADAPTERS:
        from stages.finetune.adapters import save_beside, save_merged

        (save_merged if params.merges else save_beside)(model, folder)
    else:
        model.save_pretrained(folder)


def with_strategy(
    model: nn.Module, params: FinetuneParams, objective: Objective
) -> tuple[Objective, list[TrainerCallback]]:
    """Return the loss with what the strategy adds to it, and the callbacks that it needs while training."""
    if params.strategy != "adalora":
        return objective, []
    from stages.finetune.adalora import RankBudget, with_orthogonality

    return with_orthogonality(objective, model), [RankBudget(params.options)]  # type: ignore[arg-type]


def head_of(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that are new: all that is not the encoder, and what the base has no weights of.

    The second is the case of a BERT that was saved without its pooler: the head reads what comes out of it.
    """
    beside = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]
    within = {name.rpartition(".")[0] for name in getattr(model, "new_weights", ())}
    return [*sorted(beside), *sorted(within)]


def _upper_parts(model: PreTrainedModel, options: PartialOptions) -> list[Any]:
    """Return the last layers of the encoder, and its pooler if it has one."""
    layers = encoder_layers(model)
    if options.layers > len(layers):
        raise AttuneError(
            f"finetune.partial.layers is {options.layers}, but the base model has {len(layers)} to train",
            f"set it to {len(layers)} or less, or set finetune.strategy: full",
        )
    poolers = [child for name, child in model.base_model.named_children() if name == "pooler"]
    return [*layers[-options.layers :], *poolers]
