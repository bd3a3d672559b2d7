"""The section `finetune` of `params.yaml`, under the names of `transformers.TrainingArguments` and of peft."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.common.params.augment import Share
from stages.common.params.base import Section

ADAPTERS = ("lora", "adalora", "ia3", "prefix")  # strategies of peft: new weights beside those of the base model
GREATER_IS_BETTER = {"loss": False, "accuracy": True, "macro_f1": True}


class PartialOptions(Section):
    """Train the last layers, and let the rest of the encoder be."""

    layers: int = Field(2, ge=1, le=1000, description="How many layers, counted from the head.")


class LoraOptions(Section):
    """Low-rank updates beside the weights (Hu et al. 2021)."""

    r: int = Field(8, ge=1, le=1024, description="Rank of the updates.")
    lora_alpha: float = Field(16.0, gt=0.0, le=10_000.0, description="Scale of the updates, divided by r.")
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout before the updates.")
    use_rslora: bool = Field(False, description="Divide by the square root of r instead (Kalajdzievski 2023).")
    target_modules: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="Ends of the names of the layers that get updates, or every linear layer."
    )


class AdaloraOptions(Section):
    """LoRA that moves its ranks to where they matter while it trains (Zhang et al. 2023)."""

    init_r: int = Field(12, ge=1, le=1024, description="Rank at the start.")
    target_r: int = Field(8, ge=1, le=1024, description="Mean rank at the end.")
    tinit_ratio: Share = Field(0.1, description="Share of the steps before ranks begin to fall.")
    tfinal_ratio: Share = Field(0.3, description="Share of the steps after the ranks have settled.")
    lora_alpha: float = Field(16.0, gt=0.0, le=10_000.0, description="Scale of the updates.")
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout before the updates.")
    target_modules: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="Ends of the names of the layers that get updates, or every linear layer."
    )

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if self.target_r > self.init_r:
            raise ValueError(f"target_r ({self.target_r}) is over init_r ({self.init_r}): ranks only fall")
        if self.tinit_ratio + self.tfinal_ratio >= 1.0:
            raise ValueError("tinit_ratio and tfinal_ratio leave no steps in which ranks could fall: lower one")
        return self


class Ia3Options(Section):
    """Learned factors on keys, values and feed-forward activations (Liu et al. 2022)."""

    target_modules: list[str] | None = Field(
        None, description="Ends of the names of the layers that are scaled; null: peft's choice for the model."
    )
    feedforward_modules: list[str] | None = Field(None, description="Those of them whose input is scaled.")


class PrefixOptions(Section):
    """Learned keys and values before each layer's own (Li & Liang 2021)."""

    num_virtual_tokens: int = Field(20, ge=1, le=1024, description="Length of the prefix; it takes up positions.")
    prefix_projection: bool = Field(False, description="Make the prefix with a small network while training.")


OPTIONS: dict[str, type[Section]] = {
    "partial": PartialOptions,
    "lora": LoraOptions,
    "adalora": AdaloraOptions,
    "ia3": Ia3Options,
    "prefix": PrefixOptions,
}


class FinetuneParams(Section):
    """Training, under the names of `transformers.TrainingArguments`."""

    # What is trained
    strategy: Literal["full", "head", "partial", "lora", "adalora", "ia3", "prefix"] = Field(
        "full", description="Which weights train: all, the new head, the last layers too, or an adapter of peft."
    )
    partial: PartialOptions | None = Field(None, description="Options of the strategy partial; null: its defaults.")
    lora: LoraOptions | None = Field(None, description="Options of the strategy lora; null: its defaults.")
    adalora: AdaloraOptions | None = Field(None, description="Options of the strategy adalora; null: its defaults.")
    ia3: Ia3Options | None = Field(None, description="Options of the strategy ia3; null: its defaults.")
    prefix: PrefixOptions | None = Field(None, description="Options of the strategy prefix; null: its defaults.")
    merge_adapter: bool | None = Field(
        None, description="Save an adapter merged into the model, or beside it; null: merged where that is possible."
    )
    freeze_embeddings: bool = Field(False, description="Leave the token embeddings as they are: faster, less memory.")
    train_on: Literal["train", "train_and_validation"] = Field(
        "train",
        description="Rows to learn from; with those of validation, the last epoch is kept.",
    )

    # How long, how fast
    num_train_epochs: int = Field(2, ge=1, le=1000, description="Passes over the training rows.")
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "exponential", "constant"] = Field(
        "linear", description="How the learning rate falls after the warm-up."
    )
    lr_final_ratio: Share = Field(0.0, description="Share of the peak that is left at the end; exponential needs one.")
    warmup_ratio: Share = Field(0.06, description="Share of the steps over which the learning rate rises.")
    layerwise_lr_decay: float = Field(
        1.0, gt=0.0, le=1.0, description="Factor of the learning rate from each layer to the one below; 1: all alike."
    )

    # Batches
    per_device_train_batch_size: int = Field(32, ge=1, le=4096, description="Rows per forward pass and process.")
    per_device_eval_batch_size: int = Field(128, ge=1, le=4096, description="Rows per forward pass when scoring.")
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=4096, description="Forward passes per training step; the gradient is that of their rows together."
    )
    max_tokens_per_batch: int | None = Field(
        None, ge=16, le=100_000_000, description="Batches whose padded size is over this are cut smaller; null: never."
    )
    group_by_length: bool = Field(True, description="Batches of similar lengths: less padding, faster.")
    dataloader_num_workers: int = Field(0, ge=0, le=256, description="Processes that prepare batches; 0: this one.")
    nproc_per_node: int = Field(1, ge=1, le=64, description="Training processes on this machine, one per GPU.")

    # Optimiser
    optim: Literal["adamw", "sgd", "adafactor"] = Field("adamw", description="Optimiser.")
    adam_beta1: float = Field(0.9, ge=0.0, lt=1.0, description="AdamW's decay of the mean gradient.")
    adam_beta2: float = Field(0.999, ge=0.0, lt=1.0, description="AdamW's decay of the mean squared gradient.")
    adam_epsilon: float = Field(1e-8, gt=0.0, le=1.0, description="AdamW's guard against division by zero.")
    momentum: float = Field(0.0, ge=0.0, lt=1.0, description="SGD's momentum (Nesterov's).")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="Decoupled weight decay (L2).")
    l1: float = Field(0.0, ge=0.0, le=1.0, description="Decoupled L1: weights shrink by this times the learning rate.")
    max_grad_norm: float = Field(
        1.0, ge=0.0, le=1000.0, description="Gradients are clipped to this norm; 0 switches it off."
    )

    # Loss
    loss: Literal["cross_entropy", "focal"] = Field("cross_entropy", description="Training loss.")
    focal_gamma: float | None = Field(
        None, ge=0.0, le=10.0, description="How much focal loss looks past easy rows (Lin et al. 2017); null: 2."
    )
    label_smoothing_factor: float = Field(
        0.0, ge=0.0, lt=1.0, description="Share of each target that is spread over all labels."
    )
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="Weight of a row by its label: none, balanced (rare labels count more), or one per label."
    )
    dropout: float | None = Field(
        None, ge=0.0, lt=1.0, description="Dropout in the encoder; null keeps the base model's own."
    )

    # Which epoch is kept
    metric_for_best_model: Literal["loss", "accuracy", "macro_f1"] = Field(
        "macro_f1", description="Validation score that picks the epoch to keep."
    )
    greater_is_better: bool | None = Field(
        None, description="Its direction: false for loss, true for the others; null: that one."
    )
    early_stopping_patience: int | None = Field(
        2, ge=1, le=1000, description="Epochs without a better score before training stops; null: never."
    )

    # The machine
    bf16: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: where the processor or GPU has it."
    )
    torch_num_threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; null: one per core. Pin to rebuild bytes."
    )
    logging_steps: int = Field(20, ge=1, le=100_000, description="Steps between two points of the training curve.")
    save_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Steps between two checkpoints; null: one at the end of each epoch."
    )

    @property
    def options(self) -> Section | None:
        """The options of the chosen strategy, or None if it has none."""
        kind = OPTIONS.get(self.strategy)
        return getattr(self, self.strategy) or kind() if kind else None

    @property
    def merges(self) -> bool:
        """Whether the adapter ends up inside the model's own weights; a prefix has no place there."""
        possible = self.strategy in ("lora", "adalora", "ia3")
        return possible if self.merge_adapter is None else self.merge_adapter

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> list[str]:
        """Return each pair of settings of which one would be ignored, or that cannot both be had."""
        faults = [
            f"{name} has options, but strategy is {self.strategy}: take them out, or set strategy: {name}"
            for name in ("partial", *ADAPTERS)
            if name != self.strategy and getattr(self, name) is not None
        ]
        stated = GREATER_IS_BETTER[self.metric_for_best_model]
        checks = {
            "merge_adapter is set, but strategy is not an adapter (lora, adalora, ia3, prefix)": (
                self.merge_adapter is not None and self.strategy not in ADAPTERS
            ),
            "merge_adapter: a prefix cannot be merged into the weights: set it to false or null": (
                self.merge_adapter is True and self.strategy == "prefix"
            ),
            f"freeze_embeddings: the strategy {self.strategy} leaves them as they are: set it to false": (
                self.freeze_embeddings and self.strategy != "full"
            ),
            f"layerwise_lr_decay needs layers that train, and the strategy {self.strategy} has none: set it to 1": (
                self.layerwise_lr_decay < 1 and self.strategy not in ("full", "partial")
            ),
            "lr_final_ratio must be above 0 for an exponential fall": (
                self.lr_scheduler_type == "exponential" and self.lr_final_ratio == 0
            ),
            "lr_final_ratio: a constant learning rate does not fall: set it to 0": (
                self.lr_scheduler_type == "constant" and self.lr_final_ratio > 0
            ),
            f"momentum belongs to sgd, but optim is {self.optim}": self.momentum > 0 and self.optim != "sgd",
            f"adam_beta1, adam_beta2 and adam_epsilon belong to adamw, but optim is {self.optim}": (
                self.optim != "adamw" and (self.adam_beta1, self.adam_beta2, self.adam_epsilon) != (0.9, 0.999, 1e-8)
            ),
            "focal_gamma belongs to the focal loss: set loss: focal": (
                self.focal_gamma is not None and self.loss != "focal"
            ),
            "label_smoothing_factor asks for doubt where the focal loss asks for certainty: set one of them": (
                self.label_smoothing_factor > 0 and self.loss == "focal"
            ),
            "class_weights must be above 0; rows that shall not count are left out of the data": (
                isinstance(self.class_weights, dict) and any(weight <= 0 for weight in self.class_weights.values())
            ),
            f"greater_is_better: {self.metric_for_best_model} is better when it is {'higher' if stated else 'lower'}": (
                self.greater_is_better is not None and self.greater_is_better is not stated
            ),
            "early_stopping_patience: with train_on: train_and_validation no row is left to stop by: set it to null": (
                self.early_stopping_patience is not None and self.train_on != "train"
            ),
            "max_tokens_per_batch cuts batches by length: set group_by_length: true": (
                self.max_tokens_per_batch is not None and not self.group_by_length
            ),
        }
        return faults + [fault for fault, found in checks.items() if found]
