"""What a deployment of prefect.yaml should be on the server, what it is there, and where the two differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from flows.deployment.prefect_file import Deployment, PrefectFile
from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import Automation, AutomationCore

OURS = "prefect.yaml"  # tag of an automation made from the file: the server does not tell which ones a deployment owns
MOST = 200  # deployments that a server lists at once


@dataclass(frozen=True)
class Difference:
    """Something that the server has otherwise than the file; None where one of them has nothing."""

    deployment: str
    what: str
    file: Any
    server: Any


@dataclass(frozen=True)
class Wanted:
    """A deployment of the file, with what its flow, the file's head and the server's variables add to it."""

    declared: Deployment
    flow: str
    schema: dict[str, Any]  # of the flow's parameters
    pool: str
    pull: list[dict[str, Any]]
    schedules: list["DeploymentScheduleCreate"]

    @property
    def name(self) -> str:
        """The name by which the server knows it."""
        return f"{self.flow}/{self.declared.name}"

    def automations(self, number: UUID) -> list["AutomationCore"]:
        """Return what its triggers are on a server where the deployment has this number."""
        from prefect.events import DeploymentTriggerTypes

        found = TypeAdapter(list[DeploymentTriggerTypes]).validate_python(self.declared.triggers)
        for trigger in found:
            trigger.set_deployment_id(number)
        return [trigger.as_automation().model_copy(update={"tags": [OURS]}) for trigger in found]


def wanted_of(file: PrefectFile, variables: Mapping[str, str]) -> list[Wanted]:
    """Add to each deployment what its flow says; the flows are imported from the current folder.

    Args:
        file: prefect.yaml.
        variables: of the server, by name: `{{ prefect.variables.NAME }}` may stand for a work pool.

    Raises:
        AttuneError: if a flow cannot be loaded, or the file does not go with it.
    """
    return [_wanted(one, file.pull, variables) for one in file.deployments]


def differences(client: "SyncPrefectClient", one: Wanted) -> list[Difference]:
    """Return where the server has a deployment otherwise than the file, or has none."""
    from prefect.exceptions import ObjectNotFound

    try:
        made = client.read_deployment_by_name(one.name)
    except ObjectNotFound:
        return [Difference(one.name, "deployment", "declared", "missing")]
    file = _declared(one) | _rules(one.automations(made.id))
    server = _made(made) | _rules(owned(client, made.id))
    return [
        Difference(one.name, what, file.get(what), server.get(what))
        for what in dict.fromkeys([*file, *server])
        if file.get(what) != server.get(what)
    ]


def undeclared(client: "SyncPrefectClient", wanted: list[Wanted]) -> list[Difference]:
    """Return deployments that bear all tags which those of the file have in common, but are not in the file."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.client.schemas.sorting import DeploymentSort

    shared = set.intersection(*(set(one.declared.tags) for one in wanted)) if wanted else set()
    if not shared:
        return []
    tagged = client.read_deployments(
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=sorted(shared))),
        limit=MOST,  # what is left out is null, which the server refuses with a newer fastapi
        sort=DeploymentSort.NAME_ASC,
    )
    flows = {number: client.read_flow(number).name for number in {made.flow_id for made in tagged}}
    names = {f"{flows[made.flow_id]}/{made.name}" for made in tagged} - {one.name for one in wanted}
    return [Difference(name, "deployment", None, "is there") for name in sorted(names)]


def _wanted(one: Deployment, pull: list[dict[str, Any]], variables: Mapping[str, str]) -> Wanted:
    from prefect.flows import load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate

    where = f"prefect.yaml: {one.name}"
    try:
        flow = load_flow_from_entrypoint(one.entrypoint)
    except (Exception, SystemExit) as error:  # whatever that module raises
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise AttuneError(f"{where}: {one.entrypoint} cannot be loaded: {why}") from error
    schema = parameter_schema(flow).model_dump(mode="json", exclude_unset=True)
    for parameters in (one.parameters, *(schedule.parameters for schedule in one.schedules)):
        if unknown := sorted(set(parameters) - set(schema["properties"])):
            raise AttuneError(f"{where}: {flow.name} has no parameter {unknown[0]!r}")
        if wrong := validate(parameters, schema, ignore_required=True):
            raise AttuneError(f"{where}: parameters: {wrong[0].message}")
    pool = one.work_pool.name
    for name, value in variables.items():
        pool = pool.replace(f"{{{{ prefect.variables.{name} }}}}", value)
    if "{{" in pool:
        raise AttuneError(f"{where}: no variable of the server stands for {pool}", "prefect variable set NAME POOL")
    try:
        schedules = [schedule.create() for schedule in one.schedules]
        found = Wanted(one, flow.name, schema, pool, pull if one.pull is None else one.pull, schedules)
        found.automations(UUID(int=0))
    except ValidationError as error:
        told = [f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()]
        raise AttuneError(f"{where}: {'; '.join(told)}") from None
    except ValueError as error:  # a cron line or a rule that is none
        raise AttuneError(f"{where}: {error}") from None
    return found


def _declared(one: Wanted) -> dict[str, Any]:
    """Return all that the server should have, by the name that a person is shown."""
    told, limit = one.declared, one.declared.concurrency_limit
    return {
        "entrypoint": told.entrypoint,
        "description": told.description,
        "tags": sorted(told.tags),
        "parameters": told.parameters,
        "the flow's parameters": one.schema,
        "work pool": one.pool,
        "work queue": told.work_pool.work_queue_name,
        "job variables": told.work_pool.job_variables,
        "concurrency limit": limit.limit,
        "collision strategy": limit.collision_strategy,
        "grace period": limit.grace_period_seconds,
        "paused": told.paused,
        "pull steps": one.pull,
        **{f"schedule {schedule.slug}": _when(schedule) for schedule in one.schedules},
    }


def _made(made: "DeploymentResponse") -> dict[str, Any]:
    limit, options = made.global_concurrency_limit, made.concurrency_options
    return {
        "entrypoint": made.entrypoint,
        "description": made.description,
        "tags": sorted(made.tags),
        "parameters": made.parameters,
        "the flow's parameters": made.parameter_openapi_schema,
        "work pool": made.work_pool_name,
        "work queue": made.work_queue_name,
        "job variables": made.job_variables,
        "concurrency limit": limit.limit if limit and limit.active else None,
        "collision strategy": options.collision_strategy.value if options else None,
        "grace period": options.grace_period_seconds if options else None,
        "paused": made.paused,
        "pull steps": made.pull_steps,
        **{f"schedule {schedule.slug or schedule.id}": _when(schedule) for schedule in made.schedules},
    }


def _when(schedule: "DeploymentScheduleCreate | DeploymentSchedule") -> dict[str, Any]:
    """Return what a schedule is, but for the moment from which the steps of an interval are counted."""
    rule = schedule.schedule.model_dump(mode="json", exclude={"anchor_date"})
    return {**rule, "active": schedule.active, "parameters": schedule.parameters}


def owned(client: "SyncPrefectClient", number: UUID) -> list["Automation"]:
    """Return the automations that come from triggers of the file; those that people made are left to them."""
    return [
        rule for rule in client.read_resource_related_automations(f"prefect.deployment.{number}") if OURS in rule.tags
    ]


def _rules(rules: Iterable["AutomationCore"]) -> dict[str, Any]:
    """Return what automations are by their names: each one alone, or else a list of those of one name."""
    found: dict[str, list[Any]] = {}
    for rule in rules:
        found.setdefault(f"trigger {rule.name}", []).append(_rule(rule))
    return {what: same[0] if len(same) == 1 else same for what, same in found.items()}


def _rule(rule: "AutomationCore") -> dict[str, Any]:
    fields = {"description", "enabled", "trigger", "actions", "actions_on_trigger", "actions_on_resolve"}
    return rule.model_dump(mode="json", include=fields, exclude_defaults=True)
