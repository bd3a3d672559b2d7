"""Pinned dependencies whose version differs between two revisions."""

from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flows.reviewing.findings import VersionChange
from flows.reviewing.revision import Revision

FILE = "constraints.txt"


def version_changes(base: Revision, head: Revision) -> tuple[tuple[VersionChange, ...], list[str]]:
    """Compare constraints.txt of two revisions.

    Returns:
        What differs, by name, and what could not be compared, a line each.
    """
    pins, missing = [], []
    for revision in (base, head):
        try:
            found, strange = _pins((revision.folder / FILE).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            missing.append(f"{FILE} of {revision.name} is not there or not readable: versions cannot be compared")
            continue
        pins.append(found)
        if strange:
            missing.append(f"{FILE} of {revision.name} has {strange} lines that name no version: they are not compared")
    if len(pins) < 2:
        return (), missing
    was, now = pins
    changes = []
    for key in sorted({*was, *now}):
        (old_name, old), (name, new) = was.get(key, ("", None)), now.get(key, ("", None))
        if old != new:
            changes.append(VersionChange(name or old_name, old, new, installed(key)))
    return tuple(changes), missing


def installed(package: str) -> str | None:
    """Return the version that is installed here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _pins(text: str) -> tuple[dict[str, tuple[str, str]], int]:
    """Return name and version of each package by its normalized name (PEP 503), and how many lines are no pins."""
    found: dict[str, tuple[str, str]] = {}
    strange = 0
    for line in text.splitlines():
        plain = line.partition(" #")[0].strip()
        if not plain or plain.startswith("#"):
            continue
        try:
            pin = Requirement(plain)
        except InvalidRequirement:
            strange += 1
            continue
        exact = [one.version for one in pin.specifier if one.operator == "=="]
        found[canonicalize_name(pin.name)] = pin.name, exact[0] if exact else str(pin.specifier)
    return found, strange
