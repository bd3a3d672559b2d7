"""The `tune` section: what `flows.tune` searches."""

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from stages.common.params.finetune import OPTIONS, FinetuneParams
from stages.common.params.section import Faults, Section, key

EARLIER = ("ingest", "clean", "augment", "tokenize")
COMPARED_BY = ("finetune.train_on", "finetune.metric_for_best_model", "finetune.greater_is_better")
SEARCHABLE = {
    **{name: field for name, field in FinetuneParams.model_fields.items() if name not in OPTIONS},
    **{f"{part}.{name}": field for part, options in OPTIONS.items() for name, field in options.model_fields.items()},
}


class Dimension(Section):
    """Values of one parameter: a range (low, high, log, step) or choices."""

    low: int | float | None = key(None, "Least value.")
    high: int | float | None = key(None, "Greatest value.")
    log: bool = key(False, "Draw factors rather than differences: for learning rates and the like.")
    step: int | float | None = key(None, "Distance of the values from low on; null: any.", gt=0)
    choices: list[bool | int | float | str | None] | None = key(None, "The values to choose from.", min_length=1)

    def _faults(self) -> Faults:
        if self.choices is not None:
            if self != Dimension.model_construct(choices=self.choices):
                yield (), "choices have no low, high, log or step: take them out"
        elif self.low is None or self.high is None:
            yield (), "give low and high, or choices"
        elif self.low >= self.high:
            yield "low", f"must be under high ({self.high:g})"
        elif self.log and (self.low <= 0 or self.step is not None):
            yield "log", "needs a low above 0 and no step"


class Pruner(Section):
    """Ends a trial that is doing badly."""

    kind: Literal["median", "none"] = key(
        "median", "median: a trial whose best epoch is worse than half of the others were by then; or none."
    )
    startup_trials: int = key(4, "Trials that are finished before any is ended.", ge=1, le=10_000)
    warmup_epochs: int = key(1, "Epochs that every trial gets.", ge=1, le=1000)


class TuneParams(Section):
    """The search of `make tune`; belongs to no stage, so changing it re-runs nothing."""

    trials: int = key(20, "Trainings in all, the one with the params as they are first.", ge=1, le=100_000)
    timeout: str | None = key(
        None, "No new trial starts after so long: 90s, 30m, 2h; null: never.", pattern=r"^\d+(\.\d+)?[smh]$"
    )
    metric: str | None = key(
        None, "Validation score (docs/tasks.md), or loss, to make better; null: finetune.metric_for_best_model."
    )
    pruner: Pruner = key(Pruner(), "When a trial is ended early.")
    space: dict[str, Dimension] = key(
        {}, "What is searched: parameters under finetune by dotted name, each a range or choices."
    )

    def _faults(self) -> Faults:
        for name, dimension in self.space.items():
            if reason := _fault(name, dimension):
                yield ("space", name), reason


def number_type(key: str) -> type[int] | type[float] | None:
    """Return the type of a parameter such as `finetune.lora.r`; None if it is no number, and so has no range."""
    schema = _adapter(key).json_schema()
    types = {option.get("type") for option in (schema, *schema.get("anyOf", ()))}
    return float if "number" in types else int if "integer" in types else None


def _fault(key: str, dimension: Dimension) -> str | None:
    """Return why a parameter cannot be searched, or cannot have these values."""
    stage, _, name = key.partition(".")
    if stage in EARLIER:
        return f"a trial runs finetune alone, after {stage}: use `.venv/bin/dvc exp run --queue` (docs/tuning.md)"
    if key in COMPARED_BY:
        return "trials are compared by this, so it has to be the same in all of them"
    if stage != "finetune" or name not in SEARCHABLE:
        close = get_close_matches(name or stage, SEARCHABLE, n=1)
        return "no such parameter of finetune" + (f"; did you mean 'finetune.{close[0]}'?" if close else "")
    if number_type(key) is int and isinstance(dimension.step, float):
        return f"this is a whole number, so step cannot be {dimension.step:g}"
    for value in dimension.choices if dimension.choices is not None else (dimension.low, dimension.high):
        try:
            _adapter(key).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            return f"{message[0].lower()}{message[1:]}, not {value!r}"
    return None


def _adapter(key: str) -> TypeAdapter[Any]:
    """Return the validator of one parameter of finetune."""
    field = SEARCHABLE[key.removeprefix("finetune.")]
    kind = Annotated[field.annotation, field]  # type: ignore[name-defined]
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
