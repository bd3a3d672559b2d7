"""Settings that differ between two revisions: defaults filled in, each with its line of docs/params.md."""

from collections.abc import Mapping
from typing import Any

from flows.reviewing.findings import ParamChange
from flows.reviewing.revision import Revision
from stages.common.errors import AttuneError
from stages.common.params import Params, check_params
from stages.common.params.manual import doc_line, doc_lines
from stages.common.recorded import differing
from stages.common.redact import redacted


def typed_params(revision: Revision) -> Params | None:
    """Return the params of a revision; None if they are none to the code that runs here: older code had other keys."""
    try:
        return check_params(revision.data)
    except (AttuneError, RecursionError):
        return None


def param_changes(base: Revision, head: Revision) -> tuple[tuple[ParamChange, ...], list[str]]:
    """Compare params.yaml of two revisions.

    Returns:
        What differs, in reading order, and what could not be compared, a line each.
    """
    known = [(revision, typed_params(revision)) for revision in (base, head)]
    missing = [
        f"params.yaml of {revision.name} is not what the code here reads: settings are compared as they stand in both "
        "files, without defaults"
        for revision, params in known
        if params is None
    ]
    was, now = (_plain(params) if not missing else revision.data for revision, params in known)
    lines = doc_lines()
    try:
        found = [
            ParamChange(key, _shown(old), _shown(new), doc_line(key, lines)) for key, old, new in differing(was, now)
        ]
    except RecursionError:  # YAML's aliases can make a section part of itself
        return (), [*missing, "params.yaml holds itself: its settings cannot be compared"]
    return tuple(found), missing


def _plain(params: Params | None) -> Mapping[str, Any]:
    return params.model_dump(mode="json", by_alias=True) if params else {}


def _shown(value: str | None) -> str | None:
    return None if value is None else redacted(value)
