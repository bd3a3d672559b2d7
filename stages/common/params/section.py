"""The rules every section of `params.yaml` obeys."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Annotated[float, Field(ge=0.0, lt=1.0)]
Similarity = Annotated[float, Field(ge=0.3, le=1.0)]  # Jaccard's
T = TypeVar("T")
Faults = Iterator[tuple[str | tuple[str, ...], str]]


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = []
        for keys, reason in self._faults():
            kind = PydanticCustomError("value_error", "{error}", {"error": reason})
            parts = keys.split(".") if isinstance(keys, str) else keys
            location = tuple(int(part) if part.isdigit() else part for part in parts)
            errors.append(InitErrorDetails(type=kind, loc=location, input=None))
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    def _faults(self) -> Faults:
        """Yield the key to change within this section, or (), and the reason: settings contradict each other."""
        yield from ()


def key(default: T, description: str, **limits: Any) -> T:
    """Return pydantic's field of a key that may be left out; the description is for docs/params.md."""
    return Field(default, description=description, **limits)


def matching(pattern: str, reason: str) -> AfterValidator:
    """Return a validator of texts that match the pattern from end to end."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(reason)
        return text

    return AfterValidator(check)
