"""Which weights train, and how the trained model is saved."""

from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.finetune import ADAPTERS, AdaloraOptions, PartialOptions
from stages.finetune.adalora import RankBudget, with_orthogonality
from stages.finetune.layers import encoder_layers
from stages.finetune.loss import Objective


def prepare(model: PreTrainedModel, params: FinetuneParams, max_length: int | None = None) -> PreTrainedModel:
    """Return the base model with its new head (or peft's, around it) with only what the strategy trains trainable.

    `max_length` is the number of tokens of the longest text that may come; a prefix has to fit in beside it.

    Raises:
        AttuneError: if the strategy or its options do not suit this model.
    """
    if params.strategy in ADAPTERS:
        from stages.finetune.adapters import adapted  # peft takes seconds to import

        return adapted(model, params, head_of(model), max_length)  # type: ignore[no-any-return]
    if params.strategy == "full":
        model.get_input_embeddings().requires_grad_(not params.freeze_embeddings)
        return model
    model.requires_grad_(False)
    parts: list[nn.Module] = [model.get_submodule(name) for name in head_of(model)]
    if isinstance(params.options, PartialOptions):
        layers, wanted = encoder_layers(model), params.options.layers
        if wanted > len(layers):
            raise AttuneError(
                f"finetune.partial.layers is {wanted}, but the base model has {len(layers)} to train",
                f"set it to {len(layers)} or less, or set finetune.strategy: full",
            )
        parts += [*layers[-wanted:], *(part for name, part in model.base_model.named_children() if name == "pooler")]
    for part in parts:
        part.requires_grad_(True)
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
    if isinstance(params.options, AdaloraOptions):
        return with_orthogonality(objective, model), [RankBudget(params.options)]
    return objective, []


def head_of(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that are new: all that is not the encoder, and what the base has no weights of.

    The second is the case of a BERT that was saved without its pooler: the head reads what comes out of it.
    """
    children = {name: child for name, child in model.named_children() if name != model.base_model_prefix}
    within = {name.rpartition(".")[0] for name in getattr(model, "new_weights", ())}
    return [*sorted(name for name, child in children.items() if any(True for _ in child.parameters())), *sorted(within)]
