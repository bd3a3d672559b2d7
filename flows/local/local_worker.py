"""The worker of `make services` as Prefect's server sees it: its work pool, whether it polls, the runs that it lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from stages.common.errors import AttuneError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOL, WORKER = "attune", "services"  # as services.conf says
MOST = 200  # rows of an answer; the server refuses to be asked for all


def prepare_pool(api_url: str, warn: Callable[[str], None]) -> None:
    """Make the work pool if it is missing, and end the runs in it that were lost with an earlier worker."""
    from flows.deploy import make_pool

    with _client(api_url) as client:
        try:
            make_pool(client)
        except AttuneError as error:  # it is about the deployments; the worker makes its pool itself if it has to
            warn(f"warning: {error}")
        _end_lost_runs(client)


def polls(api_url: str, since: datetime | None) -> bool:
    """Return whether the worker has told the server of itself (since a moment)."""
    with _client(api_url) as client:
        workers = client.read_workers_for_work_pool(POOL, limit=MOST, offset=0)
    seen = [worker.last_heartbeat_time for worker in workers if worker.name == WORKER]
    return any(at is not None and (since is None or at > since) for at in seen)


def _end_lost_runs(client: "SyncPrefectClient") -> None:
    """Say that flow runs crashed which a power cut or the like ended: they would keep the pool's only place."""
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Crashed

    going_on = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    lost = client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(going_on),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL]}}),
        sort=FlowRunSort.ID_DESC,
        limit=MOST,
    )
    for run in lost:
        if run.labels.get("prefect.worker.name", WORKER) == WORKER:  # those of another worker may still run
            why = "its worker ended while it ran; retrying it goes on where it stopped"
            client.set_flow_run_state(run.id, Crashed(message=why), force=True)


@contextmanager
def _client(api_url: str) -> Iterator["SyncPrefectClient"]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

    others = [PREFECT_API_KEY, PREFECT_API_AUTH_STRING]  # of a server that this terminal uses otherwise
    with (
        temporary_settings({PREFECT_API_URL: api_url}, restore_defaults=others),
        get_client(sync_client=True) as client,
    ):
        yield client
