"""The options of each strategy that has some, under peft's names where it is peft's."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params.base import Faults, Part, Section, Share, key

ADAPTERS = ("lora", "adalora", "ia3", "prefix")  # strategies of peft: new weights beside those of the base model
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
