"""Which rules are in force, in which order."""

import polars as pl

from stages.clean import contamination, languages, reject
from stages.clean.reject import Parted, Rule
from stages.clean.timestamps import unreadable_timestamp
from stages.common.params import CleanParams


def rules(params: CleanParams, against: pl.DataFrame) -> list[Rule]:
    """Return the rules in the order they are applied; a rule's name is its function's.

    Args:
        params: the section `clean`.
        against: texts that no row may equal or nearly equal, cleaned as the records are (schema Decontamination).
    """
    near = params.near_duplicates

    def length(records: pl.DataFrame) -> Parted:
        return reject.out_of_length(records, params.length.min, params.length.max)

    def language(records: pl.DataFrame) -> Parted:
        return languages.other_language(records, params.languages)

    def contaminated(records: pl.DataFrame) -> Parted:
        return contamination.contaminated(records, against, near)

    def near_duplicate(records: pl.DataFrame) -> Parted:
        return reject.near_duplicate(records, near.threshold, near.shingle_size, near.num_perm)

    in_force: list[tuple[Rule, bool]] = [
        (reject.empty_text, True),
        (reject.unlabelled, True),
        (length, True),
        (language, bool(params.languages.keep)),
        (unreadable_timestamp, params.split.by == "time"),
        (reject.conflicting_labels, True),
        (reject.exact_duplicate, True),
        (contaminated, not against.is_empty()),
        (near_duplicate, near.enabled),
    ]
    return [rule for rule, needed in in_force if needed]
