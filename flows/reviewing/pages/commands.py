"""Where a model comes from, and what to type to look further: hashes of commits, so that nothing foreign is typed."""

from shlex import quote

from flows.reviewing.findings import Lineage, Review


def commands_of(review: Review) -> tuple[tuple[str, str], ...]:
    """Return (what for, command) of a review, for its last section."""
    head = review.head.short
    found = [("the code, and its data and models", f"git switch --detach {head} && dvc checkout")]
    found += [
        ("which commit, data and params made it, and all of it back", f"python -m flows.lineage {quote(name)}")
        for name in names_of(review)
    ]
    if review.base is not None:
        pair = f"{review.base.short} {head}"
        found += [
            ("params and metrics side by side", f"dvc exp diff {pair}"),
            ("curves and confusion over each other", f"dvc plots diff {pair}"),
            ("rows of the data, with their texts", f"python -m flows.compare_data {pair} --texts"),
        ]
    found.append(("both runs in MLflow: select them, then Compare", "make ui"))
    return tuple(found)


def names_of(review: Review) -> tuple[str, ...]:
    """Return the versions of the head's model in the registry, `rotten-tomatoes/3`: an alias would move on."""
    versions = review.lineage.versions
    return tuple(f"{name}/{number}" for name, number, _ in versions[:3])


def lineage_lines(lineage: Lineage) -> list[tuple[str, str]]:
    """Return (what, value) of all that is known of where a model comes from, each value whole."""
    found = [("commit", lineage.commit), ("its message", lineage.subject), *lineage.data]
    found += [("base model", lineage.base_model[0]), ("its weights", lineage.base_model[1])]
    found += [("model", lineage.model), ("MLflow run", lineage.run or "")]
    found += [
        ("registered as", f"{name} version {version}" + (f", alias {alias}" if alias else ""))
        for name, version, alias in lineage.versions
    ]
    return [(what, value) for what, value in found if value]
