"""New rows out of training rows: who gets a child, and what it is made of."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256

import polars as pl

from stages.augment.methods import METHODS
from stages.augment.simple import Resource
from stages.common.digests import seeded_hash
from stages.common.params import AugmentParams


def as_originals(train: pl.DataFrame) -> pl.DataFrame:
    """Return the training rows with the columns that distinguish new rows from them."""
    return train.with_columns(parent=pl.lit(None, pl.String), method=pl.lit(None, pl.String))


def new_rows(train: pl.DataFrame, params: AugmentParams, seed: int, resource: Resource) -> pl.DataFrame:
    """Make the rows that the params ask for, method by method; class balancing comes last.

    A method changes `text`; every other column, a second text (`text_pair`) among them, is that of the parent. What is
    drawn for a row depends on the seed, the method's name and the row's key alone.
    """
    ids, made = train["id"].to_list(), [as_originals(train).clear()]

    def add(name: str, method: str, parents: list[int], keys: list[str]) -> None:
        rows, seeds = train[parents], [f"{seed} {name} {key}" for key in keys]
        texts = METHODS[method](rows["text"].to_list(), seeds, getattr(params, method), resource)
        new_ids = [sha256(f"{name} {key}".encode()).hexdigest()[:16] for key in keys]
        changed = [pl.Series("id", new_ids), pl.Series("text", texts), rows["id"].alias("parent")]
        made.append(rows.with_columns(changed).with_columns(method=pl.lit(name)))

    for name in METHODS:
        if count := round(getattr(params, name).share * train.height):
            parents = sorted(random.Random(f"{seed} {name}").sample(range(train.height), count))
            add(name, name, parents, [ids[at] for at in parents])
    labels = pl.concat(made)["label"].to_list()
    if chosen := to_fill_up(train["label"].to_list(), ids, params.balance.target, seed, labels):
        keys = [f"{ids[at]} {time}" for at, time in chosen]
        add("balance", params.balance.method, [at for at, _ in chosen], keys)
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
        drawn = sorted(of_label[label], key=lambda position: seeded_hash(f"{seed} balance", ids[position]))
        missing = range(wanted - have[label])
        chosen += [(drawn[number % len(drawn)], number // len(drawn)) for number in missing]
    return chosen
