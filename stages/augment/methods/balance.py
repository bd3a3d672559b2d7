"""Class balancing: which rows get a sibling so that rare labels have enough; another method says how it is made."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256


def to_fill_up(
    labels: Sequence[str], ids: Sequence[str], target: float, seed: int, made: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Choose parents so that each label has at least `target` times the rows of the commonest one.

    Args:
        labels: of the rows.
        ids: of the rows; a seeded hash of them says who is chosen, whatever the order of the rows.
        target: share of the commonest label's rows, from 0 (nothing to do) to 1 (all labels alike).
        seed: another seed chooses others.
        made: labels of the rows that other methods have made, which count as well.

    Returns:
        The position of each chosen row and how often it was chosen before: a label in need of more rows than it has
        goes round. Label by label in the order of their names.
    """
    of_label = defaultdict(list)
    for at, label in enumerate(labels):
        of_label[label].append(at)
    have = Counter([*labels, *made])
    wanted = round(target * max(have.values(), default=0))
    chosen = []
    for label in sorted(of_label):
        drawn = sorted(of_label[label], key=lambda at: sha256(f"{seed} balance {ids[at]}".encode()).digest())
        missing = range(wanted - have[label])
        chosen += [(drawn[number % len(drawn)], number // len(drawn)) for number in missing]
    return chosen
