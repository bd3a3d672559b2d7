"""Which weights train, adapters of peft among them, and how the trained model is saved."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import (
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    get_peft_model_state_dict,
)
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.pytorch_utils import Conv1D

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.params.finetune import AdaloraOptions, PartialOptions
from stages.finetune.optimizers import encoder_layers
from stages.tasks.inference import ADAPTER
from stages.tasks.losses import Losses

CONFIGS: dict[str, Any] = {"lora": LoraConfig, "adalora": AdaLoraConfig, "ia3": IA3Config, "prefix": PrefixTuningConfig}
MODELS: dict[str, Any] = MODEL_TYPE_TO_PEFT_MODEL_MAPPING  # by the name of what they do
NAME = "default"  # peft's, of the only adapter


def prepare(
    model: PreTrainedModel, params: FinetuneParams, max_length: int | None = None, kind: str = "SEQ_CLS"
) -> PreTrainedModel:
    """Return the base model with its new head (or peft's, around it) with only what the strategy trains trainable.

    `max_length` is the number of tokens of the longest text that may come; a prefix has to fit in beside it. `kind` is
    peft's name of such models: those that are no classifiers have no head that is new.

    Raises:
        AttuneError: if the strategy or its options do not suit this model.
    """
    if params.strategy == "full":
        model.get_input_embeddings().requires_grad_(not params.freeze_embeddings)
        return model
    # The head: all modules beside the encoder, and what the base model has no weights of. The second is the case of a
    # BERT that was saved without its pooler: the head reads what comes out of it.
    children = [(name, child) for name, child in model.named_children() if any(True for _ in child.parameters())]
    head = sorted(name for name, _ in children if name != model.base_model_prefix)
    head += sorted({name.rpartition(".")[0] for name in getattr(model, "new_weights", ())})
    model.requires_grad_(False)
    if params.strategy in CONFIGS:
        return _with_adapter(model, params, head if kind == "SEQ_CLS" else [], max_length, kind)
    parts: list[nn.Module] = [model.get_submodule(name) for name in head]
    if isinstance(params.options, PartialOptions):
        layers, wanted = encoder_layers(model), params.options.layers
        if wanted > len(layers):
            what = f"finetune.partial.layers is {wanted}, but the base model has {len(layers)} to train"
            raise AttuneError(what, f"set it to {len(layers)} or less, or set finetune.strategy: full")
        parts += [*layers[-wanted:], *(part for name, part in model.base_model.named_children() if name == "pooler")]
    for part in parts:
        part.requires_grad_(True)
    return model


def _with_adapter(
    model: PreTrainedModel, params: FinetuneParams, head: list[str], max_length: int | None, task: str
) -> Any:
    strategy, kind = params.strategy, model.config.model_type
    options = params.options.model_dump()  # type: ignore[union-attr]
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    output = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    layers = [name for name in layers if not any(f"{name}.".startswith(f"{part}.") for part in [*head, *output])]
    choices = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    targets = options.get("target_modules")
    for name in targets if isinstance(targets, list) else ():  # peft ignores a name as long as another one fits
        if not any(f".{layer}".endswith(f".{name}") for layer in layers):
            what = f"finetune.{strategy}.target_modules has {name!r}, and no linear layer below the head ends so"
            raise AttuneError(what, f"choose out of {choices}")
    if strategy == "adalora":
        options["total_step"] = 1_000_000  # RankBudget puts in the true number
        del options["tinit_ratio"], options["tfinal_ratio"]
    if strategy == "ia3" and targets and options["feedforward_modules"] is None:
        options["feedforward_modules"] = [name for name in IA3_FEEDFORWARD.get(kind, []) if name in targets]
    try:
        with warnings.catch_warnings(action="ignore"):  # peft's remarks on models whose layers are not nn.Linear
            config = CONFIGS[strategy](task_type=task, modules_to_save=list(head) or None, **options)
            adapted = MODELS[task](model, config, NAME)
        if strategy == "prefix":
            # Once on a text of the greatest length: no list says which models take a prefix, or ignore it.
            ids = torch.full((1, max(max_length or 0, 2)), (model.config.pad_token_id or 0) + 1, device=model.device)
            logits = adapted.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            gradients = torch.autograd.grad(logits.sum(), list(adapted.prompt_encoder.parameters()), allow_unused=True)
            if any(gradient is None or not gradient.any() for gradient in gradients):
                raise ValueError("the prefix does not change the logits")
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        fix = f"change finetune.{strategy} (linear layers end in {choices}), or set another finetune.strategy"
        if strategy == "prefix":
            fix = (
                "lower finetune.prefix.num_virtual_tokens or tokenize.max_length if together they are longer than the "
                "model's positions, or set finetune.strategy: lora, which suits every model"
            )
        raise AttuneError(f"peft cannot put {strategy} around models of type {kind}: {error}", fix) from None
    return adapted


def save(model: Any, params: FinetuneParams, folder: Path) -> None:
    """Write the trained model, so that `stages.tasks` loads it again with the same logits.

    An adapter is merged into the weights, or written beside them into the same folder, which needs nothing outside of
    it. The head is in both then: nobody who takes one of them, or lets transformers load the folder, can lose it
    (peft#310). A language model's adapter that is merged is also written alone, below it: peft puts it beside the base
    model's weights. peft's own `save_pretrained` writes the path of the base model, and sets in an order that differs
    from run to run. `model` cannot be used any more afterwards.
    """
    if params.strategy not in CONFIGS:
        model.save_pretrained(folder)
        return
    if params.merges:
        if model.peft_config[NAME].task_type == "CAUSAL_LM":  # a classifier's would lack the head's own sizes
            _write_adapter(model, folder / ADAPTER)
        _unwrap_head(model.get_base_model())
        model.float().merge_and_unload().save_pretrained(folder)
        return
    _write_adapter(model, folder)
    base = model.get_base_model() if model.peft_config[NAME].is_prompt_learning else model.unload()
    base.save_pretrained(folder)


def _write_adapter(model: Any, folder: Path) -> None:
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


def _unwrap_head(base: nn.Module) -> list[str]:
    """Put the trained head in its own place, which peft leaves out for a prefix; return the names of its modules."""
    wrapped = [(name, module) for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name, wrapper in wrapped:
        base.set_submodule(name, wrapper.modules_to_save[NAME])
    return sorted(name for name, _ in wrapped)


def step_loss(model: Any, params: FinetuneParams, losses: Losses) -> tuple[Any, list[TrainerCallback]]:
    """Return the function from outputs and targets of a forward pass to its part of the step's loss, and callbacks.

    The losses of the items (rows, or tokens) are summed and divided by the items of the whole training step, over its
    forward passes and processes, so that accumulated gradients are those of one large batch (transformers#35203);
    weights of rows are no part of the divisor for the same reason.

    AdaLoRA (Zhang et al. 2023, arXiv:2303.10512) adds something to that, and needs a callback. peft leaves it to the
    caller: the ranks fall on a schedule that needs the number of steps, and peft adds the orthogonality to the model's
    own loss, which is not the one trained here. Each forward pass of a step brings its share of it.
    """
    budget = params.options if isinstance(params.options, AdaloraOptions) else None

    def loss(outputs: Any, targets: torch.Tensor | None, num_items_in_batch: torch.Tensor | None = None) -> Any:
        """Take logits [b x k] in any precision and targets [b …]; None: a row stands in where a process has none."""
        logits = outputs.logits.float()
        values = 0.0 * logits if targets is None else losses(logits, targets)
        items = 0 if targets is None else values.numel()
        whole = items if num_items_in_batch is None else num_items_in_batch
        value = values.sum() if targets is None else values.sum() / whole
        if budget and torch.is_grad_enabled():
            share = items / whole * model.peft_config[NAME].orth_reg_weight
            value = value + share * orthogonality(model).to(value.device)
        return value

    return loss, [RankBudget(budget)] if budget else []


def orthogonality(model: nn.Module) -> torch.Tensor:
    """Return the mean Frobenius norm of P'P - 1 and QQ' - 1 over all updates of AdaLoRA (eq. 4; in float32)."""
    distances = []
    for name, weights in model.named_parameters():
        if f".lora_A.{NAME}" in name or f".lora_B.{NAME}" in name:
            with torch.autocast(weights.device.type, enabled=False):
                square = weights @ weights.T if ".lora_A." in name else weights.T @ weights  # [r x r]
                distances.append(torch.linalg.matrix_norm(square - torch.eye(len(square), device=square.device)))
    return torch.stack(distances).mean()


class RankBudget(TrainerCallback):
    """Let the ranks of AdaLoRA fall after each step of the optimiser."""

    def __init__(self, options: AdaloraOptions) -> None:
        self._options = options

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Give peft the number of steps, unless they are too few for ranks to fall."""
        steps, config = state.max_steps, given["model"].peft_config[NAME]
        config.total_step, config.tinit = steps, int(self._options.tinit_ratio * steps)
        config.tfinal = int(self._options.tfinal_ratio * steps)
        if steps - config.tfinal < 2:  # the importance of a rank is known after one step, and used in the next
            raise AttuneError(
                f"finetune.strategy is adalora, but ranks cannot fall in a training of {steps} step{'s' * (steps > 1)}",
                "raise finetune.num_train_epochs, lower finetune.adalora.tfinal_ratio, or set finetune.strategy: lora",
            )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Weigh the ranks by the gradients that are still there, and mask those that are over the budget."""
        given["model"].base_model.update_and_allocate(state.global_step + 1)  # the step that is being taken
