"""`params.yaml`, section `review`: how a review judges; it belongs to no stage, so changing it re-runs nothing."""

from stages.common.params.base import Section, key


class ReviewParams(Section):
    """What `make review` shows, and what it takes for the same model."""

    min_agreement: float = key(
        0.99,
        "Least share of test rows with the same prediction for a model trained on another kind of machine "
        "to count as equal; on the same kind, only the same bytes do.",
        ge=0.9,
        le=1.0,
    )
    examples: int = key(10, "Rows listed of each kind: improved, regressed, added, relabelled.", ge=0, le=200)
