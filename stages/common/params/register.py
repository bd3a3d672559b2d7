"""The `register` section: what a model has to pass to be promoted, and where to."""

from pydantic import Field

from stages.common.params.section import Faults, Section, Share, key


class ChampionGate(Section):
    """The model in use is scored again on the same test rows."""

    metric: str | None = key(None, "Score that is compared, also with baselines (docs/tasks.md); null: the main one.")
    allowed_drop: float = key(0.0, "By how much of it a new model may be worse than the champion.", ge=0.0)
    significant: bool = key(
        False, "The whole interval of the difference has to be above -allowed_drop, not its middle alone."
    )


class SliceGate(Section):
    """No part of the test rows may be served much worse than the others."""

    metric: str | None = key(
        None, "Score of each slice, one of the task's first two (docs/tasks.md); null: its main score."
    )
    minimum: float | None = key(None, "Least value in every slice of evaluate.slices.")
    maximum: float | None = key(None, "Most value there, instead, of a score of which less is better.")

    def _faults(self) -> Faults:
        if (self.minimum is None) == (self.maximum is None):
            yield (), "needs either minimum, or maximum where less is better"


class Gates(Section):
    """What a model has to pass to be promoted."""

    minimum: dict[str, float] = key({}, "Least value per score (docs/tasks.md).")
    maximum: dict[str, float] = key({}, "Most value per score of which less is better.")
    recall: dict[str, Share] = key({}, "Least recall per label.")
    coverage_within: Share | None = key(
        None, "How far the share of labels inside their interval may be from evaluate.conformal; null: no limit."
    )
    beat_baselines: list[str] = key([], "Baselines to be better than, by the score of the champion's gate.")
    beat_significantly: bool = key(
        False, "The whole interval of the gain over each of them has to be above 0, not its middle alone."
    )
    champion: ChampionGate | None = key(ChampionGate(), "Comparison with the champion; null: none.")
    slices: SliceGate | None = key(None, "Floor for every slice; null: none.")
    max_ece: Share | None = key(None, "Most expected calibration error; null: no limit.")
    merge_gap: float | None = key(
        None,
        "Most by which the loss a token of a test row may differ between a merged adapter and one beside the weights.",
        ge=0.0,
    )
    retention: float | None = key(
        None,
        "Most bits per byte that may be lost on ingest.retention_texts, the whole interval; null: no limit.",
        ge=0.0,
    )
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
