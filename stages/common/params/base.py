"""The rules every section of `params.yaml` obeys."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Part = Annotated[float, Field(ge=0.0, lt=1.0)]
Similarity = Annotated[float, Field(ge=0.3, le=1.0)]  # Jaccard's
T = TypeVar("T")


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def key(default: T, description: str, **limits: Any) -> T:
    """Return the field of a key that may be left out: pydantic's, with its meaning for the manual."""
    return Field(default, description=description, **limits)


def refuse(section: type[Section], faults: Iterable[tuple[tuple[str, ...], str]]) -> None:
    """Refuse settings that contradict each other, all of them at once.

    Args:
        section: where they were found.
        faults: for each, the keys that lead from the section to the setting to change, and the reason.

    Raises:
        ValidationError: if there are any.
    """
    types = ((keys, PydanticCustomError("value_error", "{error}", {"error": reason})) for keys, reason in faults)
    if errors := [InitErrorDetails(type=kind, loc=keys, input=None) for keys, kind in types]:
        raise ValidationError.from_exception_data(section.__name__, errors)


def spelled(pattern: str, reason: str) -> AfterValidator:
    """Return a validator of texts that match the pattern from end to end."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(reason)
        return text

    return AfterValidator(check)
