"""The options of each strategy that has some, under peft's names where it is peft's."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.params.augment import Share
from stages.common.params.base import Section

ADAPTERS = ("lora", "adalora", "ia3", "prefix")  # strategies of peft: new weights beside those of the base model
Names = Annotated[list[str], Field(min_length=1)]


class PartialOptions(Section):
    """Train the last layers, and let the rest of the encoder be."""

    layers: int = Field(2, ge=1, le=1000, description="How many layers, counted from the head.")


class LoraOptions(Section):
    """Low-rank updates beside the weights (Hu et al. 2021)."""

    r: int = Field(8, ge=1, le=1024, description="Rank of the updates.")
    lora_alpha: float = Field(16.0, gt=0.0, le=10_000.0, description="Scale of the updates, divided by r.")
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout before the updates.")
    use_rslora: bool = Field(False, description="Divide by the square root of r instead (Kalajdzievski 2023).")
    target_modules: Names | Literal["all-linear"] = Field(
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
    target_modules: Names | Literal["all-linear"] = Field(
        "all-linear", description="Ends of the names of the layers that get updates, or every linear layer."
    )

    @model_validator(mode="after")
    def _shrinks(self) -> Self:
        if self.target_r >= self.init_r:
            raise ValueError(
                f"target_r ({self.target_r}) is not under init_r ({self.init_r}), so no rank could fall: lower it, or "
                "set strategy: lora"
            )
        if self.tinit_ratio + self.tfinal_ratio >= 1.0:
            raise ValueError("tinit_ratio and tfinal_ratio leave no steps in which ranks could fall: lower one")
        return self


class Ia3Options(Section):
    """Learned factors on keys, values and feed-forward activations (Liu et al. 2022)."""

    target_modules: Names | None = Field(
        None, description="Ends of the names of the layers that are scaled; null: peft's choice for the model."
    )
    feedforward_modules: Names | None = Field(
        None, description="Those of target_modules whose input is scaled; null: peft's choice for the model."
    )

    @model_validator(mode="after")
    def _within(self) -> Self:
        others = set(self.feedforward_modules or ()) - set(self.target_modules or ())
        if others:
            raise ValueError(f"feedforward_modules names {min(others)!r}, which target_modules does not: add it there")
        return self


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
