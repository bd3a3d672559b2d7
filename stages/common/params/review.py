"""`params.yaml`, section `review`: how a review judges; it belongs to no stage, so changing it re-runs nothing."""

from pydantic import Field

from stages.common.params.base import Section


class ReviewParams(Section):
    """What `make review` shows, and what it takes for the same model."""

    min_agreement: float = Field(
        0.99,
        ge=0.9,
        le=1.0,
        description="Least share of test rows with the same prediction for a model trained on another kind of machine "
        "to count as equal; on the same kind, only the same bytes do.",
    )
    examples: int = Field(
        10, ge=0, le=200, description="Rows listed of each kind: improved, regressed, added, relabelled."
    )
