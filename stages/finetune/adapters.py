"""Adapters of peft: put around a model, checkpointed while they train, and saved inside of it or beside it."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModelForSequenceClassification,
    PrefixTuningConfig,
    get_peft_model_state_dict,
)
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.adalora import NAME, allocator_state, restore_allocator

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names, which Trainer looks for too
CONFIGS: dict[str, type[PeftConfig]] = {
    "lora": LoraConfig,
    "adalora": AdaLoraConfig,
    "ia3": IA3Config,
    "prefix": PrefixTuningConfig,
}


class Adapted(PeftModelForSequenceClassification):
    """peft's model with checkpoints that a training can go on from.

    peft's own lack the projection of a prefix, the masked ranks of AdaLoRA, and the state of its rank allocator.
    """

    def save_pretrained(
        self, save_directory: str, state_dict: dict[str, Any] | None = None, is_main_process: bool = True, **_: Any
    ) -> None:
        """Write a checkpoint; `Trainer` calls this."""
        if is_main_process:
            values = self.state_dict() if state_dict is None else state_dict
            state = {name: values[name] for name, weights in self.named_parameters() if weights.requires_grad}
            _write(state | allocator_state(self), Path(save_directory))

    def load_adapter(self, model_id: Any, adapter_name: str = NAME, **_: Any) -> None:
        """Return to a checkpoint; `Trainer` calls this to resume, and for the best epoch."""
        state = load_file(Path(model_id) / WEIGHTS)
        restore_allocator(self, state)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if value.requires_grad:
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
    strategy, kind = params.strategy, model.config.model_type
    model.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's remarks on models whose layers are not nn.Linear
            made = Adapted(model, _config(model, params, head), NAME)
    except (ValueError, TypeError) as error:
        raise AttuneError(
            f"peft cannot put {strategy} around models of type {kind}: {error}",
            f"change finetune.{strategy} (linear layers end in {', '.join(_layer_names(model, head))}), "
            "or set another finetune.strategy",
        ) from None
    if strategy == "prefix":
        _try_prefix(made, max(max_length or 0, 2))
    return made


def save_merged(model: Any, folder: Path) -> None:
    """Write a plain transformers model with the adapter's updates inside its own weights."""
    _unwrap_head(model.get_base_model())
    model.merge_and_unload().save_pretrained(folder)


def save_beside(model: Any, folder: Path) -> None:
    """Write base model and adapter into one folder that needs nothing outside of it.

    The head is in both: nobody who takes one of them, or lets transformers load the folder, can lose it (peft#310).
    """
    config = model.peft_config[NAME]
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = None  # masked ranks stay: without them logits differ by a hair, and transformers is lost
    _write(get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False), folder)
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    values["inference_mode"] = True
    values["modules_to_save"] = sorted(name for name, _ in _wrapped(model.get_base_model()))
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _unwrap_head(model.get_base_model())
    base = model.get_base_model() if config.is_prompt_learning else model.unload()
    base.save_pretrained(folder)


def _config(model: PreTrainedModel, params: FinetuneParams, head: list[str]) -> PeftConfig:
    """Return peft's configuration; its names are those of our options.

    Raises:
        AttuneError: if a name in `target_modules` fits no layer: peft ignores it as long as another one fits.
    """
    options = params.options.model_dump()  # type: ignore[union-attr]
    targets = options.get("target_modules")
    layers = _layer_names(model, head)
    for name in targets if isinstance(targets, list) else ():
        if not any(f".{full}".endswith(f".{name}") for full in _layers(model, head)):
            raise AttuneError(
                f"finetune.{params.strategy}.target_modules has {name!r}, and no linear layer below the head ends so",
                f"choose out of {', '.join(layers)}",
            )
    if params.strategy == "adalora":
        options["total_step"] = 1_000_000  # RankBudget puts in the true number
        del options["tinit_ratio"], options["tfinal_ratio"]
    elif targets and params.strategy == "ia3" and options["feedforward_modules"] is None:
        usual = IA3_FEEDFORWARD.get(model.config.model_type, [])
        options["feedforward_modules"] = [name for name in usual if name in targets]
    return CONFIGS[params.strategy](task_type="SEQ_CLS", modules_to_save=list(head), **options)


def _layers(model: PreTrainedModel, head: list[str]) -> list[str]:
    """Return the names of all linear layers that are not in the head."""
    linear = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    return [name for name in linear if not any(f"{name}.".startswith(f"{part}.") for part in head)]


def _layer_names(model: PreTrainedModel, head: list[str]) -> list[str]:
    """Return what the names of linear layers end in: two parts where one is not enough."""
    parts = [name.split(".") for name in _layers(model, head)]
    return sorted({".".join(part[-2:]) if part[-1] == "dense" else part[-1] for part in parts})


def _unwrap_head(base: nn.Module) -> None:
    """Put the trained head in its own place; peft would do so too, but breaks on heads of several layers."""
    for name, wrapper in _wrapped(base):
        parent, _, own = name.rpartition(".")
        setattr(base.get_submodule(parent), own, wrapper.modules_to_save[NAME])


def _wrapped(base: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]


def _write(state: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(state.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _try_prefix(model: Adapted, length: int) -> None:
    """Run the model once on a text of the greatest length: no list says which models take a prefix.

    Raises:
        AttuneError: if it fails, or the prefix has no influence on the logits.
    """
    ids = torch.full((1, length), (model.config.pad_token_id or 0) + 1, device=model.device)
    training = model.training
    model.eval()
    try:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        gradients = torch.autograd.grad(logits.sum(), list(model.prompt_encoder.parameters()), allow_unused=True)
        if any(gradient is None or not gradient.any() for gradient in gradients):
            raise ValueError("the prefix does not change the logits")
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        tokens = model.peft_config[NAME].num_virtual_tokens
        raise AttuneError(
            f"finetune.strategy is prefix, but models of type {model.config.model_type} cannot take one of {tokens} "
            f"tokens beside a text of {length}: {error}",
            "lower finetune.prefix.num_virtual_tokens or tokenize.max_length if it is too long "
            f"({getattr(model.config, 'max_position_embeddings', 'unknown')} positions in all), or set "
            "finetune.strategy: lora, which suits every model",
        ) from None
    finally:
        model.train(training)
