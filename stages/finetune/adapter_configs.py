"""What to ask of peft: an adapter's configuration for a model, checked against the layers that the model has."""

from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PrefixTuningConfig
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as IA3_FEEDFORWARD
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as IA3_TARGETS
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.common.errors import AttuneError
from stages.common.params.base import Section
from stages.common.params.strategies import AdaloraOptions, Ia3Options, LoraOptions, PrefixOptions

STEPS_UNKNOWN = 1_000_000  # RankBudget puts in the true number


def config_for(model: PreTrainedModel, options: Section | None, head: list[str]) -> PeftConfig:
    """Return peft's configuration of an adapter.

    Args:
        model: with the head that trains beside the adapter.
        options: those of a strategy of peft.
        head: names of the head's modules, which get no updates: they train as they are, and are saved with the adapter.

    Raises:
        AttuneError: if the options name layers that are not there.
    """
    match options:
        case LoraOptions() | AdaloraOptions():
            config = _low_rank(model, options, head)
        case Ia3Options():
            config = _ia3(model, options, head)
        case PrefixOptions():
            config = _prefix(model, options)
        case _:
            raise TypeError(f"{options} are not those of an adapter")
    config.task_type = "SEQ_CLS"
    config.modules_to_save = list(head)
    return config


def _low_rank(model: PreTrainedModel, options: LoraOptions | AdaloraOptions, head: list[str]) -> PeftConfig:
    section = type(options).__name__.removesuffix("Options")
    common = {
        "target_modules": _targets(model, options.target_modules, head, section),
        "lora_alpha": options.lora_alpha,
        "lora_dropout": options.lora_dropout,
    }
    if isinstance(options, LoraOptions):
        return LoraConfig(r=options.r, use_rslora=options.use_rslora, **common)
    return AdaLoraConfig(init_r=options.init_r, target_r=options.target_r, total_step=STEPS_UNKNOWN, **common)


def _ia3(model: PreTrainedModel, options: Ia3Options, head: list[str]) -> PeftConfig:
    kind = model.config.model_type
    wanted = options.target_modules or IA3_TARGETS.get(kind)
    if wanted is None:
        raise AttuneError(
            f"finetune.ia3.target_modules is not set, and peft has no choice of its own for models of type {kind}",
            f"name keys, values and the second feed-forward layer, the last in feedforward_modules as well; "
            f"there are: {', '.join(_ends(model, head))}",
        )
    usual = [name for name in IA3_FEEDFORWARD.get(kind, []) if name in wanted]
    forward = usual if options.feedforward_modules is None else options.feedforward_modules
    targets = _targets(model, list(wanted), head, "Ia3")
    return IA3Config(target_modules=targets, feedforward_modules=list(forward))


def _prefix(model: PreTrainedModel, options: PrefixOptions) -> PeftConfig:
    config = model.config
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return PrefixTuningConfig(
        num_virtual_tokens=options.num_virtual_tokens,
        prefix_projection=options.prefix_projection,
        num_layers=config.num_hidden_layers,
        num_attention_heads=groups,
        token_dim=groups * width,
        encoder_hidden_size=config.hidden_size,
        num_transformer_submodules=1,
    )


def _targets(model: PreTrainedModel, wanted: list[str] | str, head: list[str], section: str) -> list[str] | str:
    """Return the target modules for peft, which leaves out those of the head by itself.

    Raises:
        AttuneError: if an entry is the end of no layer's name.
    """
    if isinstance(wanted, str):
        return wanted
    layers = _linear(model, head)
    for end in wanted:
        if not any(name == end or name.endswith(f".{end}") for name in layers):
            raise AttuneError(
                f"finetune.{section.lower()}.target_modules has {end!r}, and no linear layer below the head ends so",
                f"choose out of {', '.join(_ends(model, head))}",
            )
    return list(wanted)


def _linear(model: PreTrainedModel, head: list[str]) -> list[str]:
    """Return the names of all linear layers that are not in the head."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and not any(f"{name}.".startswith(f"{part}.") for part in head)
    ]


def _ends(model: PreTrainedModel, head: list[str]) -> list[str]:
    """Return what the names of linear layers end in: two parts where one would not tell them apart."""
    lasts = [name.split(".") for name in _linear(model, head)]
    return sorted({".".join(parts[-2:]) if parts[-1] == "dense" else parts[-1] for parts in lasts})
