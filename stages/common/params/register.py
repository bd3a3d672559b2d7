"""`params.yaml`, section `register`: what a model has to pass to be promoted, and where to."""

from typing import Literal

from pydantic import Field

from stages.common.params.augment import Share
from stages.common.params.base import Section
from stages.common.params.evaluate import Baseline

Metric = Literal["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]


class ChampionGate(Section):
    """The model in use is scored again on the same test rows."""

    metric: Metric = Field("macro_f1", description="Score that is compared.")
    allowed_drop: Share = Field(0.0, description="How far below the champion a new model may be.")
    significant: bool = Field(
        False, description="The whole interval of the difference has to be above -allowed_drop, not its middle alone."
    )


class SliceGate(Section):
    """No part of the test rows may be served much worse than the others."""

    metric: Literal["accuracy", "macro_f1"] = Field("accuracy", description="Score of each slice.")
    minimum: Share = Field(description="Least value in every slice of evaluate.slices.")


class Gates(Section):
    """What a model has to pass to be promoted."""

    minimum: dict[Metric, Share] = Field({}, description="Least value per score.")
    beat_baselines: list[Baseline] = Field([], description="Baselines that macro-F1 must be above.")
    beat_significantly: bool = Field(
        False, description="The whole interval of the gain over each of them has to be above 0, not its middle alone."
    )
    champion: ChampionGate | None = Field(ChampionGate(), description="Comparison with the champion; null: none.")
    slices: SliceGate | None = Field(None, description="Floor for every slice; null: none.")
    max_ece: Share | None = Field(None, description="Most expected calibration error; null: no limit.")
    behaviour: dict[str, Share] = Field({}, description="Least pass rate per test of evaluate.behaviour.")
    max_size_mb: float | None = Field(None, gt=0, le=1e6, description="Most MiB of the weights; null: no limit.")
    max_latency_ms: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Most milliseconds for one text, 95th percentile here; null: no limit.",
    )


class RegisterParams(Section):
    """The gates, and the name under which the model is registered."""

    model_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=200, description="Name in the MLflow registry."
    )
    gates: Gates = Field(Gates(), description="What a model has to pass to become champion.")
    fail_on_gate: bool = Field(False, description="End with an error when a gate fails, instead of a report alone.")
