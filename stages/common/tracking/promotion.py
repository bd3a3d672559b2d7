"""Changes of the champion: promotion, rollback, and what became of a model before.

A champion that somebody set by hand in MLflow is the champion, and the next change goes on from there.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stages.common.errors import AttuneError
from stages.common.tracking.champions import (
    CHAMPION,
    DEMOTED_TAG,
    LEDGER_TAG,
    Entry,
    Overtaken,
    finish_entry,
    insist,
    ledger_run,
    read_entries,
    unless_gone,
    write_entry,
)
from stages.common.tracking.store import quiet, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Standing:
    """The version in use, and how it came to be."""

    champion: int | None
    entries: list[Entry]

    @property
    def line(self) -> list[int]:
        """The champions that a rollback can go back through, the present one last."""
        line: list[int] = []
        for entry in self.entries:
            line = _set_last(line, entry.before)
            line = [*line, entry.version] if entry.demotes is None else _set_last(line, entry.version)
        return _set_last(line, self.champion)


def champion(client: "MlflowClient", name: str) -> Any | None:
    """Return the registered version in use, or None before the first promotion."""
    with quiet(), unless_gone():
        return client.get_model_version_by_alias(name, CHAMPION)
    return None


def standing(client: "MlflowClient", name: str) -> Standing:
    """Return who is champion; a change that somebody could not bring to its end is finished first."""
    with quiet():
        run_id = ledger_run(client, name)
        entries = read_entries(client, name, run_id) if run_id else []
        while run_id and entries and not entries[-1].done:
            finish_entry(client, name, run_id, entries[-1])
            entries = read_entries(client, name, run_id)
        current = champion(client, name)
        return Standing(int(current.version) if current else None, entries)


def promote(client: "MlflowClient", name: str, version: int, seen: Standing) -> None:
    """Make a version champion that was judged against what was seen.

    Raises:
        Overtaken: if the champion is another one by now.
    """
    _change(client, name, seen, version)


def roll_back(client: "MlflowClient", name: str, to: int | None = None, reason: str = "") -> tuple[int, int]:
    """Put the champion before (or an earlier one) back; return the version demoted and the one in use now.

    Raises:
        AttuneError: if there is nothing to go back to, or somebody else changed the champion just now.
    """
    seen = standing(client, name)
    if seen.champion is None:
        raise AttuneError(f"{name} has no champion that could be rolled back", "see who is who: make champion")
    with quiet():
        found = client.search_model_versions(f"name = '{name}'")
    versions = {int(version.version): version.tags for version in found}
    once = [version for version in seen.line[:-1] if version in versions]
    if to is None:
        fit = [version for version in once if DEMOTED_TAG not in versions[version]]
        if not fit:
            raise AttuneError(f"no champion was in use before version {seen.champion}", "see who was: make champion")
        to = fit[-1]
    if to == seen.champion:
        raise AttuneError(f"version {to} is the champion already", "see who is who: make champion")
    if to not in versions or to not in {*once, *(entry.version for entry in seen.entries)}:
        were = ", ".join(map(str, once)) or "none"
        raise AttuneError(f"version {to} was never champion", f"name one that was: {were}")
    if DEMOTED_TAG in versions[to]:
        what = f"version {to} was rolled back itself: {versions[to][DEMOTED_TAG]}"
        raise AttuneError(what, f"if it may be used again: python -m flows.champion --forgive {to}")
    try:
        _change(client, name, seen, to, demotes=seen.champion, reason=" ".join(reason.split())[:500])
    except Overtaken:
        raise AttuneError("somebody else changed the champion just now", "look again: make champion") from None
    return seen.champion, to


def demotion(client: "MlflowClient", name: str, digest_tag: str, digest: str) -> tuple[int, str] | None:
    """Return the version of a model (by the digest of its files) that was rolled back, and why; None if none was."""
    with quiet():
        same = client.search_model_versions(f"name = '{name}' and tags.`{digest_tag}` = '{digest}'")
    marked = {int(one.version): str(one.tags[DEMOTED_TAG]) for one in same if DEMOTED_TAG in one.tags}
    return max(marked.items(), default=None)


def forgive(client: "MlflowClient", name: str, version: int) -> None:
    """Let a model that was rolled back be judged again.

    Raises:
        AttuneError: if there is no such version, or it was not rolled back.
    """
    with quiet():
        found = {int(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
        if version not in found or DEMOTED_TAG not in found[version].tags:
            raise AttuneError(f"no version {version} of {name} was rolled back", "see who was: make champion")
        client.delete_model_version_tag(name, str(version), DEMOTED_TAG)


def _change(
    client: "MlflowClient", name: str, seen: Standing, version: int, demotes: int | None = None, reason: str = ""
) -> None:
    """Write the next entry of the ledger, and do what it says."""
    now = standing(client, name)
    if (now.champion, len(now.entries)) != (seen.champion, len(seen.entries)):
        raise Overtaken
    number, at = len(seen.entries) + 1, datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(number, version, seen.champion, demotes, reason, at)
    with quiet():
        run_id = ledger_run(client, name)
        if run_id is None:
            raise AttuneError(f"no version of {name} has a run that could keep its champions", "register one: make run")
        insist(client.set_registered_model_tag, name, LEDGER_TAG, run_id)  # for when its version is deleted
        write_entry(client, name, run_id, entry)
        try:
            finish_entry(client, name, run_id, entry)
        except Exception as error:  # decided it is, and whoever looks next will finish it
            warn(error, f"version {version} is the champion, and `make champion` gives it the alias")


def _set_last(line: list[int], version: int | None) -> list[int]:
    """Return the line with this version in use: gone back to if it is in the line, else put at its end."""
    if version is None:
        return line
    at = max((at for at, one in enumerate(line) if one == version), default=None)
    return [*line, version] if at is None else line[: at + 1]
