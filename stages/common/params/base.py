"""The rules every section of `params.yaml` obeys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
