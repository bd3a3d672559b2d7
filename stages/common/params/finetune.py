"""The section `finetune` of `params.yaml`, under the names of `transformers.TrainingArguments`."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from stages.common.params.augment import Share
from stages.common.params.base import Section
from stages.common.params.strategies import (
    ADAPTERS,
    OPTIONS,
    AdaloraOptions,
    Ia3Options,
    LoraOptions,
    PartialOptions,
    PrefixOptions,
)

GREATER_IS_BETTER = {"loss": False, "accuracy": True, "macro_f1": True}

Weight = Annotated[float, Field(gt=0.0, le=1_000_000.0)]


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
    adam_epsilon: float = Field(1e-8, ge=1e-20, le=1.0, description="AdamW's guard against division by zero.")
    momentum: float = Field(0.0, ge=0.0, lt=1.0, description="SGD's momentum (Nesterov's).")
    weight_decay: float = Field(
        0.01, ge=0.0, le=1.0, description="Weight decay (L2): decoupled, but part of sgd's gradient."
    )
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
    class_weights: Literal["none", "balanced"] | dict[str | int, Weight] = Field(
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
        faults = [
            InitErrorDetails(
                type=PydanticCustomError("value_error", "{error}", {"error": reason}),
                loc=(key,),
                input=getattr(self, key),
            )
            for found, key, reason in self._contradictions()
            if found
        ]
        if faults:
            raise ValidationError.from_exception_data("finetune", faults)
        return self

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        """Return (whether it is so, key to change, reason): a setting is ignored, or two cannot both be had."""
        adamw = {name: type(self).model_fields[name].default for name in ("adam_beta1", "adam_beta2", "adam_epsilon")}
        labels = [str(label) for label in self.class_weights] if isinstance(self.class_weights, dict) else []
        higher = GREATER_IS_BETTER[self.metric_for_best_model]
        better = f"{self.metric_for_best_model} is better when it is {'higher' if higher else 'lower'}"
        return [
            *(
                (
                    name != self.strategy and getattr(self, name) is not None,
                    name,
                    f"has options, but strategy is {self.strategy}: take them out, or set strategy: {name}",
                )
                for name in OPTIONS
            ),
            (
                self.merge_adapter is not None and self.strategy not in ADAPTERS,
                "merge_adapter",
                f"strategy {self.strategy} makes no adapter: set it to null",
            ),
            (
                self.merge_adapter is True and self.strategy == "prefix",
                "merge_adapter",
                "a prefix cannot be merged into the weights: set it to false or null",
            ),
            (
                self.freeze_embeddings and self.strategy != "full",
                "freeze_embeddings",
                f"strategy {self.strategy} leaves them as they are anyway: set it to false",
            ),
            (
                self.layerwise_lr_decay < 1 and self.strategy not in ("full", "partial"),
                "layerwise_lr_decay",
                f"strategy {self.strategy} trains no layers of the model: set it to 1",
            ),
            (
                self.lr_scheduler_type == "exponential" and self.lr_final_ratio == 0,
                "lr_final_ratio",
                "an exponential fall never arrives at 0: set it above, such as 0.01",
            ),
            (
                self.lr_scheduler_type == "constant" and self.lr_final_ratio > 0,
                "lr_final_ratio",
                "a constant learning rate does not fall: set it to 0",
            ),
            (
                self.warmup_ratio == 1 and self.lr_final_ratio > 0 and self.lr_scheduler_type != "constant",
                "warmup_ratio",
                "leaves no steps in which the learning rate could fall to lr_final_ratio: lower it",
            ),
            (
                self.max_tokens_per_batch is not None and not self.group_by_length,
                "max_tokens_per_batch",
                "cuts batches by length: set group_by_length: true, or this to null",
            ),
            (
                self.momentum > 0 and self.optim != "sgd",
                "momentum",
                f"belongs to sgd, but optim is {self.optim}: set it to 0",
            ),
            *(
                (
                    self.optim != "adamw" and getattr(self, name) != default,
                    name,
                    f"belongs to adamw, but optim is {self.optim}: set it to {default}, or leave it out",
                )
                for name, default in adamw.items()
            ),
            (
                self.focal_gamma is not None and self.loss != "focal",
                "focal_gamma",
                "belongs to the focal loss: set loss: focal, or this to null",
            ),
            (
                self.label_smoothing_factor > 0 and self.loss == "focal",
                "label_smoothing_factor",
                "the focal loss has no smoothed targets: set it to 0, or loss: cross_entropy",
            ),
            (self.class_weights == {}, "class_weights", "names no label: write none, or a weight for each label"),
            (
                len(set(labels)) < len(labels),
                "class_weights",
                "a label is there twice, once as text and once as a number: delete one",
            ),
            (
                self.greater_is_better is not None and self.greater_is_better is not higher,
                "greater_is_better",
                f"{better}: set it to null",
            ),
            (
                self.early_stopping_patience is not None and self.train_on != "train",
                "early_stopping_patience",
                f"train_on: {self.train_on} leaves no rows to stop by: set it to null",
            ),
        ]
