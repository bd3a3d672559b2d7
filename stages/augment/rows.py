"""New rows out of training rows: who gets a child, and what it is made of."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256

import polars as pl

from stages.augment.methods import METHODS, Resource
from stages.common.params import AugmentParams

NOTHING = pl.lit(None, pl.String)


def as_originals(train: pl.DataFrame) -> pl.DataFrame:
    """Return the training rows with the columns that tell new rows from them."""
    return train.with_columns(parent=NOTHING, method=NOTHING)


def new_rows(train: pl.DataFrame, params: AugmentParams, seed: int, resource: Resource) -> pl.DataFrame:
    """Make the rows that the params ask for, method by method; class balancing comes last.

    A method changes `text`; every other column, a second text (`text_pair`) among them, is that of the parent.
    """
    made = [as_originals(train).clear()]
    for name in METHODS:
        if count := round(getattr(params, name).share * train.height):
            chosen = sorted(random.Random(f"{seed} {name}").sample(range(train.height), count))
            made.append(
                _children(train[chosen], name, train["id"].gather(chosen).to_list(), params, name, seed, resource)
            )
    labels = pl.concat(made)["label"].to_list()
    chosen_again = to_fill_up(train["label"].to_list(), train["id"].to_list(), params.balance.target, seed, labels)
    if chosen_again:
        ids = train["id"].to_list()
        keys = [f"{ids[at]} {time}" for at, time in chosen_again]
        parents = train[[at for at, _ in chosen_again]]
        made.append(_children(parents, "balance", keys, params, params.balance.method, seed, resource))
    return pl.concat(made)


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


def _children(
    parents: pl.DataFrame,
    name: str,
    keys: Sequence[str],
    params: AugmentParams,
    method: str,
    seed: int,
    resource: Resource,
) -> pl.DataFrame:
    """Make a row out of each parent; what is drawn for it hangs on the seed, the method's name and its key alone."""
    seeds = [f"{seed} {name} {key}" for key in keys]
    texts = METHODS[method](parents["text"].to_list(), seeds, getattr(params, method), resource)
    ids = [sha256(f"{name} {key}".encode()).hexdigest()[:16] for key in keys]
    return parents.with_columns(
        id=pl.Series(ids, dtype=pl.String),
        text=pl.Series(texts, dtype=pl.String),
        parent=parents["id"],
        method=pl.lit(name),
    )
