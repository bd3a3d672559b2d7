"""Adapters of peft: put around a model, and saved inside of it or beside it."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftModelForSequenceClassification,
    PrefixTuningConfig,
    get_peft_model_state_dict,
)
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.finetune.adalora import NAME

CONFIGS: dict[str, Any] = {"lora": LoraConfig, "adalora": AdaLoraConfig, "ia3": IA3Config, "prefix": PrefixTuningConfig}


def adapted(model: PreTrainedModel, params: FinetuneParams, head: list[str], max_length: int | None) -> Any:
    """Return the base model with an adapter around it; adapter and the modules of the head train, and nothing else.

    Raises:
        AttuneError: if the adapter or its options do not suit this model.
    """
    strategy, kind = params.strategy, model.config.model_type
    options = params.options.model_dump()  # type: ignore[union-attr]
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    layers = [name for name in layers if not any(f"{name}.".startswith(f"{part}.") for part in head)]
    choices = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    targets = options.get("target_modules")
    for name in targets if isinstance(targets, list) else ():  # peft ignores a name as long as another one fits
        if not any(f".{layer}".endswith(f".{name}") for layer in layers):
            raise AttuneError(
                f"finetune.{strategy}.target_modules has {name!r}, and no linear layer below the head ends so",
                f"choose out of {choices}",
            )
    if strategy == "adalora":
        options["total_step"] = 1_000_000  # RankBudget puts in the true number
        del options["tinit_ratio"], options["tfinal_ratio"]
    if strategy == "ia3" and targets and options["feedforward_modules"] is None:
        options["feedforward_modules"] = [name for name in IA3_FEEDFORWARD.get(kind, []) if name in targets]
    model.requires_grad_(False)
    try:
        with warnings.catch_warnings(action="ignore"):  # peft's remarks on models whose layers are not nn.Linear
            config = CONFIGS[strategy](task_type="SEQ_CLS", modules_to_save=list(head), **options)
            made = PeftModelForSequenceClassification(model, config, NAME)
    except (ValueError, TypeError) as error:
        raise AttuneError(
            f"peft cannot put {strategy} around models of type {kind}: {error}",
            f"change finetune.{strategy} (linear layers end in {choices}), or set another finetune.strategy",
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
    peft's own `save_pretrained` writes the path of the base model, and sets in an order that differs from run to run.
    """
    config = model.peft_config[NAME]
    if isinstance(config, AdaLoraConfig):
        config.rank_pattern = None  # masked ranks stay: without them logits differ by a hair, and transformers is lost
    state = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(state.items())}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    values |= {"inference_mode": True, "modules_to_save": _unwrap_head(model.get_base_model())}
    text = json.dumps(values, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(f"{text}\n", encoding="utf-8")
    base = model.get_base_model() if config.is_prompt_learning else model.unload()
    base.save_pretrained(folder)


def _unwrap_head(base: nn.Module) -> list[str]:
    """Put the trained head in its own place, which peft leaves out for a prefix; return the names of its modules."""
    wrapped = [(name, module) for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name, wrapper in wrapped:
        base.set_submodule(name, wrapper.modules_to_save[NAME])
    return sorted(name for name, _ in wrapped)


def _try_prefix(model: Any, length: int) -> None:
    """Run the model once on a text of the greatest length: no list says which models take a prefix, or ignore it."""
    ids = torch.full((1, length), (model.config.pad_token_id or 0) + 1, device=model.device)
    try:
        logits = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        gradients = torch.autograd.grad(logits.sum(), list(model.prompt_encoder.parameters()), allow_unused=True)
        if any(gradient is None or not gradient.any() for gradient in gradients):
            raise ValueError("the prefix does not change the logits")
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise AttuneError(
            f"models of type {model.config.model_type} cannot take a prefix of "
            f"{model.peft_config[NAME].num_virtual_tokens} tokens beside a text of {length}: {error}",
            "lower finetune.prefix.num_virtual_tokens or tokenize.max_length if together they are longer than the "
            "model's positions, or set finetune.strategy: lora, which suits every model",
        ) from None
