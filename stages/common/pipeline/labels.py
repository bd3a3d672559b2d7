"""Whether there are labels enough for a classifier and three splits."""

from collections.abc import Mapping

from stages.common.errors import AttuneError
from stages.common.schemas import SPLITS


def check_label_counts(counts: Mapping[str, int], when: str) -> None:
    """Check the number of rows of each label; `when` is for the message, such as "after cleaning".

    Raises:
        AttuneError: if there are fewer than two labels, or too few rows of one for three splits.
    """
    if len(counts) < 2:
        found = f"only the label {next(iter(counts))!r}" if counts else "not one labelled row"
        raise AttuneError(
            f"{when} there is {found}, and a classifier needs two labels or more",
            "check columns.label and ingest.labels, and the rules that rejected rows (counted above)",
        )
    rare = [f"{label!r} ({count})" for label, count in counts.items() if count < len(SPLITS)]
    if rare:
        raise AttuneError(
            f"{when} there are too few rows for three splits under the label {', '.join(rare[:5])}",
            "add rows, or leave the label out by listing only the others in ingest.labels",
        )
