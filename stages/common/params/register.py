"""The `register` section: what a model has to pass to be promoted, and where to."""

from typing import Literal

from pydantic import Field

from stages.common.params.evaluate import Baseline
from stages.common.params.section import Section, Share, key

Metric = Literal["accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"]


class ChampionGate(Section):
    """The model in use is scored again on the same test rows."""

    metric: Metric = key("macro_f1", "Score that is compared.")
    allowed_drop: Share = key(0.0, "How far below the champion a new model may be.")
    significant: bool = key(
        False, "The whole interval of the difference has to be above -allowed_drop, not its middle alone."
    )


class SliceGate(Section):
    """No part of the test rows may be served much worse than the others."""

    metric: Literal["accuracy", "macro_f1"] = key("accuracy", "Score of each slice.")
    minimum: Share = Field(description="Least value in every slice of evaluate.slices.")


class Gates(Section):
    """What a model has to pass to be promoted."""

    minimum: dict[Metric, Share] = key({}, "Least value per score.")
    beat_baselines: list[Baseline] = key([], "Baselines that macro-F1 must be above.")
    beat_significantly: bool = key(
        False, "The whole interval of the gain over each of them has to be above 0, not its middle alone."
    )
    champion: ChampionGate | None = key(ChampionGate(), "Comparison with the champion; null: none.")
    slices: SliceGate | None = key(None, "Floor for every slice; null: none.")
    max_ece: Share | None = key(None, "Most expected calibration error; null: no limit.")
    behaviour: dict[str, Share] = key({}, "Least pass rate per test of evaluate.behaviour.")
    max_size_mb: float | None = key(None, "Most MiB of the weights; null: no limit.", gt=0, le=1e6)
    max_latency_ms: float | None = key(
        None, "Most milliseconds for one text, 95th percentile here; null: no limit.", gt=0, le=1e6
    )


class RegisterParams(Section):
    """The gates, and the name under which the model is registered."""

    model_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=200, description="Name in the MLflow registry."
    )
    gates: Gates = key(Gates(), "What a model has to pass to become champion.")
    fail_on_gate: bool = key(False, "End with an error when a gate fails, instead of a report alone.")
