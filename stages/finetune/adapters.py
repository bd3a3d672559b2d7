"""Adapters of peft: put around a model, checkpointed while they train, and saved inside of it or beside it."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, PeftModelForSequenceClassification, get_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.strategies import PrefixOptions
from stages.finetune.adalora import NAME, allocator_state, restore_allocator
from stages.finetune.adapter_configs import config_for

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names, which Trainer looks for too


class Adapted(PeftModelForSequenceClassification):
    """peft's model, whose checkpoints hold all that it takes to go on.

    Those of peft itself are made for use: of a projected prefix they lack the projection, of AdaLoRA the ranks that
    are masked for now, and what the rank allocator remembers.
    """

    def save_pretrained(
        self, save_directory: str, state_dict: dict[str, Any] | None = None, is_main_process: bool = True, **_: Any
    ) -> None:
        """Write a checkpoint; `Trainer` calls this."""
        if not is_main_process:
            return
        values = self.state_dict() if state_dict is None else state_dict
        state = {name: values[name] for name, weights in self.named_parameters() if weights.requires_grad}
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        _write(state | allocator_state(self), folder)

    def load_adapter(self, model_id: Any, adapter_name: str = NAME, **_: Any) -> None:
        """Go back to a checkpoint; `Trainer` calls this, to go on and to return to the best epoch.

        Raises:
            ValueError: if it is one of another set-up.
        """
        state = load_file(Path(model_id) / WEIGHTS)
        remembered = restore_allocator(self, state)
        weights = {name: value for name, value in self.named_parameters() if value.requires_grad}
        if set(weights) != set(state) - remembered:
            raise ValueError(f"{model_id} is a checkpoint of another model or strategy")
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(state[name])


def adapted(model: PreTrainedModel, params: FinetuneParams, head: list[str], max_length: int | None) -> Adapted:
    """Return the model with an adapter around it; adapter and head train, and nothing else.

    Args:
        model: the base model with its new head; it is changed in place.
        params: the stage's section.
        head: names of the modules that train as they are, and are saved with the adapter (peft's `modules_to_save`).
        max_length: tokens of the longest text that may come.

    Raises:
        AttuneError: if the adapter or its options do not suit this model.
    """
    model.requires_grad_(False)
    config = config_for(model, params.options, head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's remarks on models whose layers are not nn.Linear
            made = Adapted(model, config, NAME)
    except (ValueError, TypeError) as error:
        raise AttuneError(
            f"peft cannot put {params.strategy} around the base model ({model.config.model_type}): {error}",
            f"change finetune.{params.strategy}, or set another finetune.strategy",
        ) from None
    if isinstance(params.options, PrefixOptions):
        _try_prefix(made, params.options, max_length)
    return made


def save_merged(model: Any, folder: Path) -> None:
    """Write a plain transformers model with the adapter's updates inside its own weights."""
    _unwrap_head(model.get_base_model())
    model.merge_and_unload().save_pretrained(folder)


def save_beside(model: Any, folder: Path) -> None:
    """Write base model and adapter into one folder that needs nothing outside of it.

    The head is in both: nobody who takes one of them, or lets transformers load the folder, can lose it (peft#310).
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config[NAME]
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = None  # masked ranks stay: without them logits differ by a hair, and transformers is lost
    state = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    _write(state, folder)
    told = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    told["inference_mode"] = True
    told["modules_to_save"] = [name for name, _ in _wrapped(model.get_base_model())]
    (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _unwrap_head(model.get_base_model())
    base = model.get_base_model() if config.is_prompt_learning else model.unload()
    base.save_pretrained(folder)


def _unwrap_head(base: nn.Module) -> None:
    """Put the trained head in its own place; peft would do so too, but breaks on heads of several layers."""
    for name, wrapper in _wrapped(base):
        parent, _, own = name.rpartition(".")
        setattr(base.get_submodule(parent), own, wrapper.modules_to_save[NAME])


def _wrapped(base: nn.Module) -> list[tuple[str, Any]]:
    """Return the modules of the head, by name."""
    return sorted((name, part) for name, part in base.named_modules() if isinstance(part, ModulesToSaveWrapper))


def _write(state: dict[str, torch.Tensor], folder: Path) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(state.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _try_prefix(model: Adapted, options: PrefixOptions, max_length: int | None) -> None:
    """Run the model once: which models take a prefix, and how many positions they have left, is not written anywhere.

    Raises:
        AttuneError: if the prefix does not reach the answers, or a text of the greatest length does not fit in.
    """
    kind, training = model.config.model_type, model.training
    positions, text = getattr(model.config, "max_position_embeddings", None), max(max_length or 0, 2)
    too_long = AttuneError(
        f"finetune.prefix.num_virtual_tokens is {options.num_virtual_tokens}, and with a text of {text} tokens beside "
        f"it that is more than the base model has positions for ({positions})",
        "lower it, or tokenize.max_length",
    )
    model.eval()
    prefix = list(model.prompt_encoder[NAME].parameters())
    try:
        moved = torch.autograd.grad(_answer(model, 2).sum(), prefix, allow_unused=True)
        if any(gradient is None or not gradient.any() for gradient in moved):
            raise ValueError("the prefix does not change the answers")
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        if positions and options.num_virtual_tokens + 2 > positions:
            raise too_long from None
        raise AttuneError(
            f"finetune.strategy is prefix, but models of type {kind} cannot take one: {error}",
            "set finetune.strategy: lora, which suits every model",
        ) from None
    try:
        with torch.no_grad():
            _answer(model, text)
    except (RuntimeError, IndexError):  # RoBERTa counts positions from the padding's on, and so has two fewer
        raise too_long from None
    finally:
        model.train(training)


def _answer(model: Adapted, length: int) -> torch.Tensor:
    token = (model.config.pad_token_id or 0) + 1
    ids = torch.full((1, length), token, device=model.device)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
