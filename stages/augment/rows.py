"""New rows out of training rows: by which methods, how many, and out of which rows."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import sha256

import polars as pl

from stages.augment.pretrained import back_translation, contextual
from stages.augment.synonyms import synonyms
from stages.augment.words import Method, Resource, over_words, punctuation_insertion, random_deletion, random_swap
from stages.common.digests import seeded_hash
from stages.common.params import AugmentParams, CleanParams
from stages.common.schemas import AugmentedRecords
from stages.tasks.base import Task

# In the order in which they are applied: of two equal new texts, that of the earlier method stays. A new method is a
# function, a line here and a section in the params.
METHODS: dict[str, Method] = {
    "random_deletion": over_words(random_deletion),
    "random_swap": over_words(random_swap),
    "punctuation_insertion": over_words(punctuation_insertion),
    "synonyms": synonyms,
    "contextual": contextual,
    "back_translation": back_translation,
}


def new_rows(train: pl.DataFrame, task: Task, params: AugmentParams, seed: int, resource: Resource) -> pl.DataFrame:
    """Make the rows that the params ask for, method by method; class balancing comes last.

    A method changes `text`; every other column, a second text (`text_pair`) among them, is that of the parent. What is
    drawn for a row depends on the seed, the method's name and the row's key alone.
    """
    ids, made = train["id"].to_list(), [AugmentedRecords.empty()]

    def add(name: str, method: str, parents: list[int], keys: list[str]) -> None:
        rows, seeds = train[parents], [f"{seed} {name} {key}" for key in keys]
        texts = METHODS[method](rows["text"].to_list(), seeds, getattr(params, method), resource)
        new_ids = [sha256(f"{name} {key}".encode()).hexdigest()[:16] for key in keys]
        changed = [pl.Series("id", new_ids), pl.Series("text", texts), rows["id"].alias("parent")]
        made.append(rows.with_columns(changed).with_columns(method=pl.lit(name)))

    for name in METHODS:
        if count := round(getattr(params, name).share * train.height):
            parents = sorted(random.Random(f"{seed} {name}").sample(range(train.height), count))
            add(name, name, parents, [ids[parent] for parent in parents])
    labels = pl.concat([train["label"], *(rows["label"] for rows in made)])
    strata = task.strata(labels, task.settled(train["label"], CleanParams())).to_list()
    balance = strata[: train.height], ids, params.balance.target, seed, strata[train.height :]
    if chosen := to_fill_up(*balance):
        keys = [f"{ids[parent]} {time}" for parent, time in chosen]
        add("balance", params.balance.method, [parent for parent, _ in chosen], keys)
    return pl.concat(made)


def to_fill_up(
    labels: Sequence[str], ids: Sequence[str], target: float, seed: int, made: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Choose parents so that each label has at least `target` times the rows of the commonest one.

    A seeded hash of the ids says who is chosen, whatever the order of the rows. The rows that other methods have made,
    with the labels `made`, count as well. What is returned, label by label in the order of their names, is the position
    of each chosen row and how often it was chosen before, as a label may need more rows than it has.
    """
    of_label = defaultdict(list)
    for position, label in enumerate(labels):
        of_label[label].append(position)
    counts = Counter([*labels, *made])
    wanted = round(target * max(counts.values(), default=0))
    chosen = []
    for label in sorted(of_label):
        ordered = sorted(of_label[label], key=lambda position: seeded_hash(f"{seed} balance", ids[position]))
        missing = range(wanted - counts[label])
        chosen += [(ordered[number % len(ordered)], number // len(ordered)) for number in missing]
    return chosen
