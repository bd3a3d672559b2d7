"""The `finetune` section, under the names of `transformers.TrainingArguments` and of peft."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from stages.common.params.section import Faults, Part, Section, Share, key

ADAPTERS = ("lora", "adalora", "ia3", "prefix")  # strategies of peft: new weights beside those of the base model

Weight = Annotated[float, Field(gt=0.0, le=1_000_000.0)]
Factor = Annotated[float, Field(gt=0.0, le=1.0)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Names = Annotated[list[str], Field(min_length=1)]
Targets = Annotated[
    Names | Literal["all-linear"],
    Field(description="Ends of the names of the layers that get updates, or every linear layer."),
]


class PartialOptions(Section):
    """Train the last layers, and let the rest of the encoder be."""

    layers: int = key(2, "How many layers, counted from the head.", ge=1, le=1000)


class LoraOptions(Section):
    """Low-rank updates beside the weights (Hu et al. 2021)."""

    r: int = key(8, "Rank of the updates.", ge=1, le=1024)
    lora_alpha: float = key(16.0, "Scale of the updates, divided by r.", gt=0.0, le=10_000.0)
    lora_dropout: Part = key(0.0, "Dropout before the updates.")
    use_rslora: bool = key(False, "Divide by the square root of r instead (Kalajdzievski 2023).")
    target_modules: Targets = "all-linear"


class AdaloraOptions(Section):
    """LoRA that moves its ranks to where they matter while it trains (Zhang et al. 2023)."""

    init_r: int = key(12, "Rank at the start.", ge=1, le=1024)
    target_r: int = key(8, "Mean rank at the end.", ge=1, le=1024)
    tinit_ratio: Share = key(0.1, "Share of the steps before ranks begin to fall.")
    tfinal_ratio: Share = key(0.3, "Share of the steps after the ranks have settled.")
    lora_alpha: float = key(16.0, "Scale of the updates.", gt=0.0, le=10_000.0)
    lora_dropout: Part = key(0.0, "Dropout before the updates.")
    target_modules: Targets = "all-linear"

    def _faults(self) -> Faults:
        if self.target_r >= self.init_r:
            yield "target_r", f"is not under init_r ({self.init_r}): no rank could fall; or set strategy: lora"
        if self.tinit_ratio + self.tfinal_ratio >= 1.0:
            yield "tfinal_ratio", "leaves no steps after tinit_ratio in which ranks could fall: lower one"


class Ia3Options(Section):
    """Learned factors on keys, values and feed-forward activations (Liu et al. 2022)."""

    target_modules: Names | None = key(
        None, "Ends of the names of the layers that are scaled; null: peft's choice for the model."
    )
    feedforward_modules: Names | None = key(
        None, "Those of target_modules whose input is scaled; null: peft's choice for the model."
    )

    def _faults(self) -> Faults:
        if others := set(self.feedforward_modules or ()) - set(self.target_modules or ()):
            yield "feedforward_modules", f"names {min(others)!r}, which target_modules does not: add it there"


class PrefixOptions(Section):
    """Learned keys and values before each layer's own (Li & Liang 2021)."""

    num_virtual_tokens: int = key(20, "Length of the prefix; it takes up positions.", ge=1, le=1024)
    prefix_projection: bool = key(False, "Make the prefix with a small network while training.")


OPTIONS: dict[str, type[Section]] = {
    "partial": PartialOptions,
    "lora": LoraOptions,
    "adalora": AdaloraOptions,
    "ia3": Ia3Options,
    "prefix": PrefixOptions,
}

# Settings that belong to another one: their neutral value, the other setting, and its values that they go with
ONLY_WITH: dict[str, tuple[Any, str, tuple[Any, ...]]] = {
    **{name: (None, "strategy", (name,)) for name in OPTIONS},
    "merge_adapter": (None, "strategy", ADAPTERS),
    "freeze_embeddings": (False, "strategy", ("full",)),
    "layerwise_lr_decay": (1.0, "strategy", ("full", "partial")),
    "lr_final_ratio": (0.0, "lr_scheduler_type", ("linear", "cosine", "exponential")),
    "max_tokens_per_batch": (None, "group_by_length", (True,)),
    "momentum": (0.0, "optim", ("sgd",)),
    "adam_beta1": (0.9, "optim", ("adamw",)),
    "adam_beta2": (0.999, "optim", ("adamw",)),
    "adam_epsilon": (1e-8, "optim", ("adamw",)),
    "focal_gamma": (None, "loss", ("focal",)),
    "huber_delta": (1.0, "loss", ("huber",)),
    "label_smoothing_factor": (0.0, "loss", (None, "cross_entropy")),
    "early_stopping_patience": (None, "train_on", ("train",)),
}


class FinetuneParams(Section):
    """Training, under the names of `transformers.TrainingArguments`."""

    # What is trained
    strategy: Literal["full", "head", "partial", "lora", "adalora", "ia3", "prefix"] = key(
        "full", "Which weights train: all, the new head, the last layers too, or an adapter of peft."
    )
    partial: PartialOptions | None = key(None, "Options of the strategy partial; null: its defaults.")
    lora: LoraOptions | None = key(None, "Options of the strategy lora; null: its defaults.")
    adalora: AdaloraOptions | None = key(None, "Options of the strategy adalora; null: its defaults.")
    ia3: Ia3Options | None = key(None, "Options of the strategy ia3; null: its defaults.")
    prefix: PrefixOptions | None = key(None, "Options of the strategy prefix; null: its defaults.")
    merge_adapter: bool | None = key(
        None, "Save an adapter merged into the model, or beside it; null: merged where that is possible."
    )
    freeze_embeddings: bool = key(False, "Leave the token embeddings as they are: faster, less memory.")
    train_on: Literal["train", "train_and_validation"] = key(
        "train", "Rows to learn from; with those of validation, the last epoch is kept."
    )

    # How long, how fast
    num_train_epochs: Epochs = key(2, "Passes over the training rows.")
    learning_rate: Factor = key(1e-4, "Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "exponential", "constant"] = key(
        "linear", "How the learning rate falls after the warm-up."
    )
    lr_final_ratio: Share = key(0.0, "Share of the peak that is left at the end; exponential needs one.")
    warmup_ratio: Share = key(0.06, "Share of the steps over which the learning rate rises.")
    layerwise_lr_decay: Factor = key(1.0, "Factor of the learning rate from each layer to the one below; 1: all alike.")

    # Batches
    per_device_train_batch_size: int = key(32, "Rows per forward pass and process.", ge=1, le=4096)
    per_device_eval_batch_size: int = key(128, "Rows per forward pass when scoring.", ge=1, le=4096)
    gradient_accumulation_steps: int = key(
        1, "Forward passes per training step; the gradient is that of their rows together.", ge=1, le=4096
    )
    max_tokens_per_batch: int | None = key(
        None, "Batches whose padded size is over this are cut smaller; null: never.", ge=16, le=100_000_000
    )
    group_by_length: bool = key(True, "Batches of similar lengths: less padding, faster.")
    packing: Literal["auto", True, False] = key(
        "auto",
        "Rows of a batch one after the other instead of padded; auto: on a GPU, if the base model keeps them apart.",
    )
    gradient_checkpointing: Literal["auto", True, False] = key(
        "auto", "Compute activations twice, which takes less memory and more time; auto: where memory would not do."
    )
    dataloader_num_workers: int = key(0, "Processes that prepare batches; 0: this one.", ge=0, le=256)
    nproc_per_node: int = key(1, "Training processes on this machine, one per GPU.", ge=1, le=64)

    # Optimiser
    optim: Literal["adamw", "sgd", "adafactor"] = key("adamw", "Optimiser.")
    adam_beta1: Part = key(0.9, "AdamW's decay of the mean gradient.")
    adam_beta2: Part = key(0.999, "AdamW's decay of the mean squared gradient.")
    adam_epsilon: float = key(1e-8, "AdamW's guard against division by zero.", ge=1e-20, le=1.0)
    momentum: Part = key(0.0, "SGD's momentum (Nesterov's).")
    weight_decay: Share = key(0.01, "Weight decay (L2): decoupled, but part of sgd's gradient.")
    l1: Share = key(0.0, "Decoupled L1: weights shrink by this times the learning rate.")
    max_grad_norm: float = key(1.0, "Gradients are clipped to this norm; 0 switches it off.", ge=0.0, le=1000.0)

    # Loss
    loss: str | None = key(None, "Training loss, one of the task's (docs/tasks.md); null: the first of them.")
    focal_gamma: float | None = key(
        None, "How much focal loss looks past easy rows (Lin et al. 2017); null: 2.", ge=0.0, le=10.0
    )
    huber_delta: float = key(
        1.0, "From this error on, in standard deviations, the Huber loss is no longer squared.", gt=0.0, le=100.0
    )
    label_smoothing_factor: Part = key(0.0, "Share of each target that is spread over all labels.")
    class_weights: Literal["none", "balanced"] | dict[str | int, Weight] = key(
        "none", "Weight of a row by its label: none, balanced (rare labels count more), or one per label."
    )
    dropout: Part | None = key(None, "Dropout in the encoder; null keeps the base model's own.")

    # Which epoch is kept
    metric_for_best_model: str | None = key(
        None, "Validation score (docs/tasks.md), or loss, that picks the epoch to keep; null: the task's main score."
    )
    greater_is_better: bool | None = key(None, "Its direction, such as false for loss; null: the score's own.")
    early_stopping_patience: Epochs | None = key(2, "Epochs without a better score before training stops; null: never.")

    # The machine
    bf16: Literal["auto", True, False] = key("auto", "bfloat16 autocast; auto: where the processor or GPU has it.")
    torch_num_threads: int | None = key(None, "CPU threads; null: one per core. Pin to rebuild bytes.", ge=1, le=1024)
    logging_steps: int = key(20, "Steps between two points of the training curve.", ge=1, le=100_000)
    save_steps: int | None = key(
        None, "Steps between two checkpoints; null: one at the end of each epoch.", ge=1, le=10_000_000
    )

    @property
    def options(self) -> Section | None:
        """The options of the chosen strategy, or None if it has none."""
        kind = OPTIONS.get(self.strategy)
        return getattr(self, self.strategy) or kind() if kind else None

    @property
    def merges(self) -> bool:
        """Whether the adapter is merged into the model's weights; a prefix cannot be."""
        possible = self.strategy in ("lora", "adalora", "ia3")
        return possible if self.merge_adapter is None else self.merge_adapter

    def _faults(self) -> Faults:
        for name, (neutral, other, values) in ONLY_WITH.items():
            actual = getattr(self, other)
            if getattr(self, name) != neutral and actual not in values:
                belongs = " or ".join(f"{other}: {json.dumps(value)}" for value in values)
                yield name, f"belongs to {belongs}, not {json.dumps(actual)}: set it to {json.dumps(neutral)}"
        if self.merge_adapter and self.strategy == "prefix":
            yield "merge_adapter", "a prefix cannot be merged into the weights: set it to false or null"
        if self.lr_scheduler_type == "exponential" and self.lr_final_ratio == 0:
            yield "lr_final_ratio", "an exponential fall never arrives at 0: set it above, such as 0.01"
        if self.warmup_ratio == 1 and self.lr_final_ratio > 0 and self.lr_scheduler_type != "constant":
            yield "warmup_ratio", "leaves no steps in which the learning rate could fall to lr_final_ratio: lower it"
        if isinstance(self.class_weights, dict):
            if not self.class_weights:
                yield "class_weights", "names no label: write none, or a weight for each label"
            if len({str(label) for label in self.class_weights}) < len(self.class_weights):
                yield "class_weights", "a label is there twice, once as text and once as a number: delete one"
