"""Who is champion and who was: a ledger that two promotions at once cannot both extend.

MLflow sets an alias for whoever comes last, and cannot be asked to do so only if nobody else did meanwhile. A param of
a run can: once written, it never takes another value (run and name are a primary key of the store, behind a server as
well). So each change of champion is a param `champion.NAME.CREATED.0001`, `….0002` … of one run, and whoever writes
number n+1 has moved the champion from where it stood at n. What follows (alias, tags, `….0001.done`) is
done by the writer or, where that one was killed, by whoever looks next.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
DONE = ".done"
LEDGER_TAG = "attune.ledger_run"  # of the registered model: the run that keeps the ledger
DEMOTED_TAG = "attune.demoted"  # of a version: why it was rolled back
GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how stores say that there is no such alias or version


class Overtaken(Exception):
    """Another model became champion since this one was judged."""


@dataclass(frozen=True)
class Entry:
    """A change of champion.

    Args:
        number: from 1 on.
        version: the champion from here on.
        before: the one until here; None: none.
        demotes: the version that was rolled back; None: this is a promotion.
        reason: for that.
        at: time in UTC.
        done: whether alias and tags say so, too.
    """

    number: int
    version: int
    before: int | None
    demotes: int | None
    reason: str
    at: str
    done: bool = False


def read_entries(client: "MlflowClient", name: str, run_id: str) -> list[Entry]:
    """Return the ledger of a registered model that a run keeps, in order."""
    params, life = client.get_run(run_id).data.params, _life(client, name)
    entries: list[Entry] = []
    while (kept := params.get(_key(life, number := len(entries) + 1))) is not None:
        fields = json.loads(kept)
        fields.pop("token")
        entries.append(Entry(number, **fields, done=_key(life, number, DONE) in params))
    return entries


def write_entry(client: "MlflowClient", name: str, run_id: str, entry: Entry) -> None:
    """Write an entry.

    Raises:
        Overtaken: if somebody else has written one of this number.
    """
    from mlflow.exceptions import MlflowException

    fields = {key: value for key, value in asdict(entry).items() if key not in ("number", "done")}
    # The token makes two promotions of one version differ: of equal values, MLflow takes both.
    key, value = _key(_life(client, name), entry.number), json.dumps({**fields, "token": secrets.token_hex(8)})
    refused = None
    try:
        client.log_param(run_id, key, value)
    except MlflowException as error:  # it may be written all the same: what stands there decides
        refused = error
    kept = client.get_run(run_id).data.params.get(key)
    if kept is None:
        raise refused or RuntimeError(f"the run {run_id} has not kept {key}")
    if kept != value:
        raise Overtaken


def finish_entry(client: "MlflowClient", name: str, run_id: str, entry: Entry) -> None:
    """Make alias and tags say what an entry says, unless that was done before."""
    entries = read_entries(client, name, run_id)
    if entries[-1].number != entry.number or entries[-1].done:
        return  # nobody writes a next one before the last is done
    while True:
        last = entries[-1]
        if last.demotes is not None:
            why = f"{last.at}: {last.reason or 'no reason given'}"
            with unless_gone():
                insist(client.set_model_version_tag, name, str(last.demotes), DEMOTED_TAG, why)
        with unless_gone():
            insist(client.set_registered_model_alias, name, CHAMPION, str(last.version))
        if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(last.version):
            insist(client.delete_registered_model_alias, name, CHALLENGER)
        # Whoever slept for long before the line above may have undone a later change: the last one holds.
        entries = read_entries(client, name, run_id)
        if entries[-1].number == last.number:
            break
    insist(client.log_param, run_id, _key(_life(client, name), last.number, DONE), "yes")


def ledger_run(client: "MlflowClient", name: str) -> str | None:
    """Return the run that keeps the ledger: the one tagged or, at first, that of the lowest version.

    Two promotions at once find the same one, since a new version is never the lowest.

    Raises:
        AttuneError: if the tagged one was deleted.
    """
    tagged, known = None, False
    with unless_gone():
        tagged, known = client.get_registered_model(name).tags.get(LEDGER_TAG), True
    if not known:
        return None
    if tagged is None:
        runs = (one.run_id for one in _by_number(client.search_model_versions(f"name = '{name}'")))
        return next((str(run_id) for run_id in runs if run_id and _is_active(client, run_id)), None)
    if not _is_active(client, tagged):
        raise AttuneError(
            f"MLflow's run {tagged}, which keeps the champions of {name}, was deleted: restore it there",
            f"mlflow runs restore --run-id {tagged}; to begin anew, delete the registered model's tag {LEDGER_TAG}",
        )
    return str(tagged)


def _is_active(client: "MlflowClient", run_id: str) -> bool:
    with unless_gone():
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    return False


@contextmanager
def unless_gone() -> Iterator[None]:
    """Leave out what cannot be done because model, version, alias or run are not there (or no longer)."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in GONE:
            raise


def insist(call: Callable[..., Any], *arguments: str) -> None:
    """Make a change that may be made twice, up to three times.

    Of two who give something its first alias or tag at the same moment, MLflow fails one, as the row is there by then.
    """
    from mlflow.exceptions import MlflowException

    for pause in (0.1, 0.5, None):
        try:
            call(*arguments)
            return
        except MlflowException as error:
            if pause is None or error.error_code in GONE:
                raise
            time.sleep(pause)


def _life(client: "MlflowClient", name: str) -> str:
    """Return name and creation (ms) of a registered model.

    One run can be a version of several; and of one that was deleted and made again, whose versions count from 1 anew.
    """
    with unless_gone():
        return f"{name}.{client.get_registered_model(name).creation_timestamp}"
    return name


def _key(life: str, number: int, end: str = "") -> str:
    return f"champion.{life}.{number:04d}{end}"


def _by_number(versions: Any) -> list[Any]:
    return sorted(versions, key=lambda version: int(version.version))
