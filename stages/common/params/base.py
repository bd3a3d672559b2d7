"""The rules every section of `params.yaml` obeys."""

from pydantic import BaseModel, ConfigDict


class FaultAt(ValueError):
    """A fault that a section finds at a place of its own inside itself; `inside` are the keys that lead there."""

    def __init__(self, inside: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.inside = inside


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
