"""The section `tune` of `params.yaml`: what `flows.tune` searches; it belongs to no stage, so it re-runs nothing."""

from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from stages.common.params.base import FaultAt, Section
from stages.common.params.finetune import FinetuneParams

SCALAR = bool | int | float | str | None
EARLIER = ("ingest", "clean", "augment", "tokenize")
COMPARED_BY = ("train_on", "metric_for_best_model", "greater_is_better")  # what trials are compared by is no choice


class Dimension(Section):
    """Values of one parameter: a range (low, high, log, step) or choices."""

    low: int | float | None = Field(None, description="Least value.")
    high: int | float | None = Field(None, description="Greatest value.")
    log: bool = Field(False, description="Draw factors rather than differences: for learning rates and the like.")
    step: int | float | None = Field(None, gt=0, description="Distance of the values from low on; null: any.")
    choices: list[SCALAR] | None = Field(None, min_length=1, description="The values to choose from.")

    @property
    def values(self) -> list[SCALAR]:
        """The values that stand in the file: the choices, or both ends."""
        return self.choices if self.choices is not None else [self.low, self.high]

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("choices have no low, high, log or step: take them out")
            if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("choices: a value stands there twice")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be under high ({self.high:g})")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        elif self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step ({self.step:g}) is longer than the range")
        return self


class Pruner(Section):
    """Ends a trial that is doing badly."""

    kind: Literal["median", "none"] = Field(
        "median", description="median: a trial whose best epoch is worse than half of the others were by then; or none."
    )
    startup_trials: int = Field(4, ge=1, le=10_000, description="Trials that are finished before any is ended.")
    warmup_epochs: int = Field(1, ge=1, le=1000, description="Epochs that every trial gets.")


class TuneParams(Section):
    """The search of `make tune`; belongs to no stage, so changing it re-runs nothing."""

    trials: int = Field(
        20, ge=1, le=100_000, description="Trainings in all, the one with the params as they are first."
    )
    timeout: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?[smh]$", description="No new trial starts after so long: 90s, 30m, 2h; null: never."
    )
    metric: Literal["loss", "accuracy", "macro_f1"] | None = Field(
        None, description="Validation score to make better; null: finetune.metric_for_best_model."
    )
    pruner: Pruner = Field(Pruner(), description="When a trial is ended early.")
    space: dict[str, Dimension] = Field(
        {}, description="What is searched: parameters under finetune by dotted name, each a range or choices."
    )

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for key, dimension in self.space.items():
            try:
                _check(key, dimension)
            except ValueError as error:
                raise FaultAt(("space", key), str(error)) from None
        return self


def field_of(key: str) -> FieldInfo:
    """Return the field of `FinetuneParams` that a dotted name such as `finetune.lora.r` means.

    Raises:
        ValueError: saying why it cannot be searched, or what it should be called.
    """
    stage, *_ = key.split(".")
    if stage in EARLIER:
        raise ValueError(
            f"a trial runs finetune alone, after {stage}: search with `dvc exp run --queue` (docs/tuning.md)"
        )
    known = dict(_fields("finetune", FinetuneParams))
    if key not in known:
        names = [name.removeprefix("finetune.") for name in known]
        close = get_close_matches(key.removeprefix("finetune."), names, n=1)
        hint = f"; did you mean 'finetune.{close[0]}'?" if close else ": it has to be one of finetune's"
        raise ValueError(f"no such parameter{hint}")
    if key.removeprefix("finetune.") in COMPARED_BY:
        raise ValueError("trials are compared by this, so it has to be the same in all of them")
    return known[key]


def number_type(key: str) -> type[int] | type[float] | None:
    """Return whether a parameter is a whole number or any number; None if it has no range."""
    kinds = set(_kinds(field_of(key).annotation))
    return float if float in kinds else int if int in kinds else None


def _check(key: str, dimension: Dimension) -> None:
    """Raise ValueError unless the parameter takes the values."""
    field = field_of(key)
    if dimension.choices is None and number_type(key) is None:
        raise ValueError("this is no number, so it has no low and high: give choices")
    if number_type(key) is int and isinstance(dimension.step, float):
        raise ValueError(f"this is a whole number, so step cannot be {dimension.step:g}")
    config = ConfigDict(strict=True, allow_inf_nan=False)
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field], config=config)  # type: ignore[arg-type, valid-type]
    for value in dimension.values:
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise ValueError(f"{message[0].lower()}{message[1:]}, not {value!r}") from None


def _fields(prefix: str, model: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the searchable fields of a section and of the sections in it."""
    for name, field in model.model_fields.items():
        sections = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
        if sections:
            yield from _fields(f"{prefix}.{name}", sections[0])
        else:
            yield f"{prefix}.{name}", field


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield what a union is made of."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation
