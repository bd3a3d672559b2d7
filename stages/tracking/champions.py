"""Who is champion, who was, and who was rolled back: an alias in MLflow, and tags of the versions.

A champion that somebody set by hand in MLflow is the champion, and the next change goes on from there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stages.common.errors import AttuneError
from stages.tracking.runs import MODEL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
PROMOTED_TAG = "attune.promoted"  # of a version: when it was last put into use (UTC)
REPLACED_TAG = "attune.replaced"  # of a version: when another one last took its place (UTC)
DEMOTED_TAG = "attune.demoted"  # of a version: when and why it was rolled back
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how stores say that there is no such alias or version
LISTS = "see who was: make champion"


class Overtaken(AttuneError):
    """Another model became champion in the meantime."""

    def __init__(self) -> None:
        fix = "see who it is: make champion; judge this model again: make register"
        super().__init__("another model became champion in the meantime", fix, passing=True)


def champion(client: "MlflowClient", name: str) -> Any | None:
    """Return the registered version in use, or None if there is none."""
    with unless_gone():
        return client.get_model_version_by_alias(name, CHAMPION)
    return None


def champion_number(client: "MlflowClient", name: str) -> int | None:
    """Return the number of the version in use, or None if there is none."""
    current = champion(client, name)
    return int(current.version) if current else None


def version_tags(client: "MlflowClient", name: str) -> dict[int, dict[str, str]]:
    """Return the tags of each version of a registered model, by its number."""
    return {int(version.version): version.tags for version in client.search_model_versions(f"name = '{name}'")}


def previous_champion(client: "MlflowClient", name: str) -> int | None:
    """Return the version that was in use last before the champion, leaving out those that were rolled back."""
    current = champion_number(client, name)
    replaced = {
        number: tags[REPLACED_TAG]
        for number, tags in version_tags(client, name).items()
        if REPLACED_TAG in tags and DEMOTED_TAG not in tags and number != current
    }
    return max(replaced, key=lambda number: (replaced[number], number), default=None)


def promote(client: "MlflowClient", name: str, version: int, seen: int | None) -> None:
    """Make a version champion.

    Raises:
        Overtaken: if the champion is another one by now than `seen`, which it was compared with; None: there was none.
    """
    now = _now()
    if seen is not None and seen != version:
        with unless_gone():
            client.set_model_version_tag(name, str(seen), REPLACED_TAG, now)
    if champion_number(client, name) != seen:  # asked last: MLflow gives an alias to whoever comes last
        raise Overtaken
    client.set_registered_model_alias(name, CHAMPION, str(version))
    client.set_model_version_tag(name, str(version), PROMOTED_TAG, now)
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)


def roll_back(client: "MlflowClient", name: str, to: int | None = None, reason: str = "") -> tuple[int, int]:
    """Put the previous champion (or an earlier one, rolled back or not) back into use.

    Returns:
        The version rolled back, and the one in use now.

    Raises:
        AttuneError: if there is nothing to go back to, or somebody else changed the champion just now.
    """
    current, versions = champion_number(client, name), version_tags(client, name)
    if current is None:
        raise AttuneError(f"{name} has no champion that could be rolled back", LISTS)
    to = previous_champion(client, name) if to is None else to
    if to is None:
        fix = f"{LISTS}; for one that was rolled back: make rollback ARGS='--to N'"
        raise AttuneError(f"no champion is known that was in use before version {current}", fix)
    if to == current or not {PROMOTED_TAG, REPLACED_TAG} & versions.get(to, {}).keys():
        fix = f"{LISTS}; to use a version all the same, give it the alias champion in MLflow: make ui"
        raise AttuneError(f"version {to} is no earlier champion of {name}", fix)
    why = " ".join(reason.split())[:500] or "no reason given"
    client.set_model_version_tag(name, str(current), DEMOTED_TAG, f"{_now()}: {why}")
    if DEMOTED_TAG in versions[to]:
        client.delete_model_version_tag(name, str(to), DEMOTED_TAG)
    promote(client, name, to, current)
    return current, to


def demotion(client: "MlflowClient", name: str, digest: str) -> tuple[int, str] | None:
    """Return the version of a model (by the digest of its files) that was rolled back, and why; None if none was."""
    same = {number: tags for number, tags in version_tags(client, name).items() if tags.get(MODEL_TAG) == digest}
    return max(((number, tags[DEMOTED_TAG]) for number, tags in same.items() if DEMOTED_TAG in tags), default=None)


@contextmanager
def unless_gone() -> Iterator[None]:
    """Leave out what cannot be done because model, version, alias or run are not there (or no longer)."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in GONE:
            raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
