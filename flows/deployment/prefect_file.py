"""prefect.yaml, read strictly: Prefect itself passes over a key that it does not know."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

PREFECT_FILE = Path("prefect.yaml")
HELP = "docs/deployments.md says what may stand there"


class Strict(BaseModel):
    """A part of the file; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid")


class Schedule(Strict):
    """When a deployment runs by itself. With no slug, Prefect could not tell which schedule was changed."""

    slug: str = Field(min_length=1)
    active: bool
    cron: str | None = None
    interval: float | None = Field(None, gt=0)  # seconds
    rrule: str | None = None
    timezone: str = "UTC"
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_three(self) -> "Schedule":
        if sum(rule is not None for rule in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("one of cron, interval and rrule is needed")
        return self

    def create(self) -> "DeploymentScheduleCreate":
        """Return it as Prefect's client takes it.

        Raises:
            ValidationError: if the rule or the time zone is none.
        """
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.schedules import Cron, Interval, RRule

        if self.cron is not None:
            made = Cron(self.cron, timezone=self.timezone)
        elif self.interval is not None:
            made = Interval(self.interval, timezone=self.timezone)
        else:
            made = RRule(self.rrule or "", timezone=self.timezone)
        found = DeploymentScheduleCreate.from_schedule(made)
        return found.model_copy(update={"slug": self.slug, "active": self.active, "parameters": self.parameters})


class WorkPool(Strict):
    """Where a deployment runs."""

    name: str
    work_queue_name: str = "default"
    job_variables: dict[str, Any] = {}


class ConcurrencyLimit(Strict):
    """How many runs there are at once, and what becomes of one more."""

    limit: int = Field(ge=1)
    collision_strategy: str = Field(pattern="^(ENQUEUE|CANCEL_NEW)$")
    grace_period_seconds: int | None = Field(None, ge=60, le=86400)


class Deployment(Strict):
    """One deployment."""

    name: str = Field(pattern="^[^/%&<>]+$")  # others part the names of a flow and a deployment, or stand in URLs
    description: str
    entrypoint: str
    tags: list[str] = Field(min_length=1)
    parameters: dict[str, Any] = {}
    work_pool: WorkPool
    concurrency_limit: ConcurrencyLimit
    schedules: list[Schedule]
    triggers: list[dict[str, Any]] = []
    pull: list[dict[str, Any]] | None = None  # in the place of the file's own
    paused: bool = False

    @model_validator(mode="after")
    def _distinct(self) -> "Deployment":
        for kind, names in (
            ("slug", [one.slug for one in self.schedules]),
            ("trigger", [str(one.get("name")) for one in self.triggers]),
        ):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"the {kind} {twice[0]!r} stands there twice")
            if "None" in names:
                raise ValueError(f"a {kind} has no name")
        return self


class PrefectFile(Strict):
    """The whole file. Images are built beforehand (Dockerfile), so build and push are null."""

    name: str
    build: None
    push: None
    pull: list[dict[str, Any]] = Field(min_length=1)  # without it, the deployer's own folder would be deployed
    deployments: list[Deployment]


def read_prefect_file(path: Path = PREFECT_FILE) -> PrefectFile:
    """Read prefect.yaml.

    Raises:
        AttuneError: if it is missing or no YAML, has an unknown or wrong key, or a placeholder where none is filled in.
    """
    try:
        data = YAML(typ="safe", pure=True).load(path)
        file = PrefectFile.model_validate(data)
    except FileNotFoundError:
        raise AttuneError(f"{path} is missing", "run this from the project's folder") from None
    except OSError as error:
        raise AttuneError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise AttuneError(f"{path} is no YAML that can be read: its brackets are too deep") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise AttuneError(f"{path} is no YAML: {error}") from None
    except ValidationError as error:
        lines = [f"  {_place(data, wrong['loc'])}: {wrong['msg']}" for wrong in error.errors()]
        raise AttuneError("\n".join([f"{path} is not in order", *lines]), HELP) from None
    for one in file.deployments:
        _refuse_placeholders(path, one)
    return file


def _place(data: Any, keys: tuple[int | str, ...]) -> str:
    """Return where in the file something is, with the names of deployments and schedules instead of their numbers."""
    told = []
    for key in keys:
        if isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            data = data.get(key) if isinstance(data, dict) else None
        name = (data.get("name") or data.get("slug")) if isinstance(data, dict) else None
        told.append(str(name if isinstance(key, int) and name else key))
    return ".".join(told) or "the file"


def _refuse_placeholders(path: Path, one: Deployment) -> None:
    """Refuse {{ … }} that `prefect deploy` would fill in from the environment of whoever deploys."""
    from prefect.utilities.templating import find_placeholders

    plain = one.model_dump(include={"name", "description", "entrypoint", "tags", "parameters", "schedules"})
    if found := sorted(placeholder.full_match for placeholder in find_placeholders(plain)):
        raise AttuneError(
            f"{path}: {one.name} holds {found[0]}, and nothing fills it in there",
            "write the value; a variable may stand in work_pool.name, others in pull and job_variables",
        )
