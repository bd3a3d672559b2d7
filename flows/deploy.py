"""`python -m flows.deploy`: make the deployments of prefect.yaml what the file says; `--check` only compares.

`prefect deploy` of Prefect 3.8 makes the same deployments of the same file, but it writes the value that `$ATTUNE_HOME`
has where it runs into the pull steps, keeps schedules that the file has lost, and passes over unknown keys.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command import exit_status
from flows.deployment.deployed import Difference, Wanted, differences, owned, undeclared, wanted_of
from flows.deployment.prefect_file import read_prefect_file
from stages.common.errors import AttuneError
from stages.common.redact import redacted
from stages.common.shown import shown

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL_VARIABLE, POOL = "attune_work_pool", "attune"
LONGEST = 300  # characters of a value that differs
POOL_LIMIT = 1  # two trainings at once slow each other down more than they gain


def main(arguments: list[str] | None = None) -> int:
    """Deploy, or compare: status 0 if the server has what the file says, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description="Deploy what prefect.yaml declares.")
    parser.add_argument("--check", action="store_true", help="only compare the file with the server")
    work = _check if parser.parse_args(arguments).check else _deploy
    return exit_status(work, "interrupted; `make deploy` goes on where it stopped")


def _check() -> int:
    file = read_prefect_file()
    with connect() as client:
        variable = client.read_variable_by_name(POOL_VARIABLE)
        found = [] if variable else [Difference("–", f"variable {POOL_VARIABLE}", POOL, None)]
        wanted = wanted_of(file, {POOL_VARIABLE: str(variable.value) if variable else POOL})
        for one in wanted:
            found += differences(client, one)
        found += undeclared(client, wanted)
    _print(wanted, found, "The server differs from prefect.yaml; make deploy puts right what the file declares")
    return bool(found)


def _deploy() -> int:
    file = read_prefect_file()  # a mistake in it is told before anything is made
    with connect() as client:
        pool = make_pool(client)
        wanted = wanted_of(file, {POOL_VARIABLE: pool})
        for one in wanted:
            if changed := differences(client, one):
                create(client, one)
                if changed[0].what == "deployment":
                    print(f"made {one.name}")
                else:
                    _print([], changed, f"{one.name}: put right on the server")
        left = [difference for one in wanted for difference in differences(client, one)] + undeclared(client, wanted)
        _print(wanted, left, "Still otherwise on the server (what is not in the file: prefect deployment delete NAME)")
        if not client.read_workers_for_work_pool(pool, limit=1, offset=0):  # null to some servers otherwise
            print(f"no worker has come yet for its runs: make services, or prefect worker start --pool {pool}")
    return bool(left)


@contextmanager
def connect() -> Iterator["SyncPrefectClient"]:
    """Give a client of the Prefect server that PREFECT_API_URL names.

    Raises:
        AttuneError: if none is named, if it does not answer, is something else, or refuses what it is asked for.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    url = str(get_current_settings().api.url or "")
    fix = "`make services` starts one here; for another: export PREFECT_API_URL=http://HOST:4200/api"
    if not url:  # Prefect would start a server for this program alone
        raise AttuneError("PREFECT_API_URL is not set", fix)
    with get_client(sync_client=True) as client:
        if wrong := client.api_healthcheck():
            raise AttuneError(f"no Prefect server answers at {redacted(url)} ({type(wrong).__name__})", fix)
        stranger = AttuneError(f"what answers at {redacted(url)} is no Prefect server", fix)
        try:
            if not re.match(r"\d+\.\d+", str(client.api_version())):
                raise stranger
            yield client
        except (ValidationError, json.JSONDecodeError) as error:  # prefect.yaml is no cause of these
            raise stranger from error
        except ObjectAlreadyExists as error:  # what Prefect's client makes of status 409, whatever the reason
            raise AttuneError(f"the Prefect server refuses: {_detail(error.http_exc)}") from error
        except PrefectHTTPStatusError as error:
            raise AttuneError(f"the Prefect server refuses: {_detail(error)}") from error
        except httpx.TransportError as error:
            raise AttuneError(f"{redacted(url)} does not answer any more ({type(error).__name__})", fix) from error


def make_pool(client: "SyncPrefectClient") -> str:
    """Return the work pool that prefect.yaml deploys to; make it, and the variable that names it, if they are missing.

    Raises:
        AttuneError: if the variable names a pool of a person's own that is not there.
    """
    from prefect.client.schemas.actions import VariableCreate, WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    variable = client.read_variable_by_name(POOL_VARIABLE)
    name = str(variable.value) if variable else POOL
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        if name != POOL:
            raise AttuneError(
                f"the variable {POOL_VARIABLE} names the work pool {name}, which is not there",
                f"make it (docs/containers.md), or take the usual one: prefect variable unset {POOL_VARIABLE}",
            ) from None
        template = ProcessWorker.get_default_base_job_template()
        made = WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=POOL_LIMIT)
        with suppress(ObjectAlreadyExists):  # somebody else's doing, just now
            client.create_work_pool(made)
            print(f"made the work pool {POOL}: processes, one run at a time")
    if not variable:
        with suppress(ObjectAlreadyExists):
            client.create_variable(VariableCreate(name=POOL_VARIABLE, value=name))
            print(f"set the variable {POOL_VARIABLE} to {name}")
    return name


def create(client: "SyncPrefectClient", one: Wanted) -> None:
    """Make a deployment on the server, in the place of one of its name and of all its schedules."""
    from prefect.client.schemas.objects import ConcurrencyOptions

    told, limit = one.declared, one.declared.concurrency_limit
    number = client.create_deployment(
        flow_id=client.create_flow_from_name(one.flow),
        name=told.name,
        description=told.description,
        entrypoint=told.entrypoint,
        tags=told.tags,
        parameters=told.parameters,
        parameter_openapi_schema=one.schema,
        enforce_parameter_schema=True,
        work_pool_name=one.pool,
        work_queue_name=told.work_pool.work_queue_name,
        job_variables=told.work_pool.job_variables,
        concurrency_limit=limit.limit,
        concurrency_options=ConcurrencyOptions(**limit.model_dump(exclude={"limit"}, exclude_none=True)),
        schedules=one.schedules,
        pull_steps=one.pull,
        paused=told.paused,
    )
    client.delete_resource_owned_automations(f"prefect.deployment.{number}")
    for copy in owned(client, number):  # made in the UI of one of ours
        client.delete_automation(copy.id)
    for rule in one.automations(number):
        client.create_automation(rule)


def _detail(error: Any) -> str:
    try:
        said = error.response.json()
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    return redacted(str(said.get("detail") or said.get("exception_detail") or error))


def _print(wanted: list[Wanted], found: list[Difference], title: str) -> None:
    """Print the differences, or else what the server has."""
    console = Console(highlight=False)
    if not found:
        for one in wanted:
            when = [f"{name} ({'on' if on else 'off'})" for name, on in _starts(one)]
            console.print(Text(f"{one.name}  {', '.join(when) or 'on demand'}"), soft_wrap=True)
        console.print(Text(f"{len(wanted)} deployments stand on the server as prefect.yaml says"))
        return
    table = Table(title=Text(title), title_justify="left")
    for column in ("deployment", "what", "prefect.yaml", "server"):
        table.add_column(column, overflow="fold", no_wrap=column == "deployment")  # a name is one to copy
    for at in found:
        cells = (at.deployment, at.what, _shown(at.file, at.server), _shown(at.server, at.file))
        table.add_row(*map(Text, cells))
    console.print(table)


def _starts(one: Wanted) -> Iterator[tuple[str, bool]]:
    for schedule in one.declared.schedules:
        rule = schedule.cron or schedule.rrule or f"every {schedule.interval:g} s"
        yield f"{schedule.slug}: {rule} {schedule.timezone}", schedule.active
    for trigger in one.declared.triggers:
        yield f"{trigger['name']}: {', '.join(trigger.get('expect', []))}", trigger.get("enabled", True)


def _shown(value: Any, other: Any) -> str:
    value = _apart(value, other)
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return "–" if value is None else shown(redacted(told), LONGEST)


def _apart(value: Any, other: Any) -> Any:
    """Return what of a value is not the same in the other."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {key: _apart(part, other.get(key)) for key, part in value.items() if other.get(key) != part}
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
        return [_apart(one, another) for one, another in zip(value, other, strict=True) if one != another]
    return value


if __name__ == "__main__":
    sys.exit(main())
