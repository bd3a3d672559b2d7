"""The section `tune` of `params.yaml`: what `flows.tune` searches; it belongs to no stage, so it re-runs nothing."""

from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from stages.common.params.base import Faults, Section, key
from stages.common.params.finetune import FinetuneParams, Score

EARLIER = ("ingest", "clean", "augment", "tokenize")
COMPARED_BY = ("finetune.train_on", "finetune.metric_for_best_model", "finetune.greater_is_better")


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
    metric: Score | None = key(None, "Validation score to make better; null: finetune.metric_for_best_model.")
    pruner: Pruner = key(Pruner(), "When a trial is ended early.")
    space: dict[str, Dimension] = key(
        {}, "What is searched: parameters under finetune by dotted name, each a range or choices."
    )

    def _faults(self) -> Faults:
        for name, dimension in self.space.items():
            if reason := _fault(name, dimension):
                yield ("space", name), reason


def number_type(key: str) -> type[int] | type[float] | None:
    """Return whether a parameter such as `finetune.lora.r` is a whole number or any number; None: it has no range."""
    kinds = _kinds(_searchable_fields()[key].annotation)
    return float if float in kinds else int if int in kinds else None


def _fault(key: str, dimension: Dimension) -> str | None:
    """Return why a parameter cannot be searched, or cannot have these values."""
    stage, known = key.split(".", maxsplit=1)[0], _searchable_fields()
    if stage in EARLIER:
        return f"a trial runs finetune alone, after {stage}: search with `dvc exp run --queue` (docs/tuning.md)"
    if key in COMPARED_BY:
        return "trials are compared by this, so it has to be the same in all of them"
    if key not in known:
        names = [name.removeprefix("finetune.") for name in known]
        close = get_close_matches(key.removeprefix("finetune."), names, n=1)
        return "no such parameter of finetune" + (f"; did you mean 'finetune.{close[0]}'?" if close else "")
    field, number = known[key], number_type(key)
    if number is int and isinstance(dimension.step, float):
        return f"this is a whole number, so step cannot be {dimension.step:g}"
    config = ConfigDict(strict=True, allow_inf_nan=False)
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field], config=config)  # type: ignore[arg-type, valid-type]
    for value in dimension.choices if dimension.choices is not None else (dimension.low, dimension.high):
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            return f"{message[0].lower()}{message[1:]}, not {value!r}"
    return None


@cache
def _searchable_fields(model: type[Section] = FinetuneParams, prefix: str = "finetune") -> dict[str, FieldInfo]:
    """Return the fields of `finetune` and of the sections in it, by dotted name."""
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        fields |= _searchable_fields(inner[0], f"{prefix}.{name}") if inner else {f"{prefix}.{name}": field}
    return fields


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return what a union is made of."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
