"""The Prefect server that a program reports to: the one that PREFECT_API_URL names, or a temporary one of Prefect's."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from stages.common.errors import AttuneError
from stages.common.redact import redacted

REACH_SECONDS, START_SECONDS, DRAIN_SECONDS = 5.0, 120, 10.0


def named_server() -> str:
    """Return PREFECT_API_URL, or nothing if it is not set; an AttuneError if no server answers there."""
    from prefect.settings import get_current_settings

    url = str(get_current_settings().api.url or "")
    if url and not answers(url):
        fix = "start it; or unset PREFECT_API_URL (in a profile: .venv/bin/prefect config unset PREFECT_API_URL), "
        fix += "without which `make` finds the server of `make services`"
        raise AttuneError(f"no Prefect server answers at {redacted(url)}, which PREFECT_API_URL names", fix)
    return url


@contextmanager
def api_server() -> Iterator[None]:
    """Have a server for as long as the block lasts; an AttuneError if the one named does not answer, or none starts."""
    if named_server():  # asked first: the import of Prefect's own server takes a second and a half
        yield
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.server.api.server import SubprocessASGIServer

    print("starting a Prefect server for this run (`make services` starts one that stays)", flush=True)
    # Ctrl-C reaches every process of the terminal's group, and a run whose server is gone hangs for minutes. A signal
    # that is blocked here is blocked in the server as well.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(START_SECONDS)  # the one that Prefect's clients share; it ends with this program
    except RuntimeError as error:
        fix = ".venv/bin/prefect server start says why"
        raise AttuneError(f"the Prefect server for this run does not start: {error}", fix) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:  # sent at exit, it would be tried for a minute and more
        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=DRAIN_SECONDS)


def answers(url: str) -> bool:
    """Return whether a server answers at `url`/health; no proxy stands between a machine and itself."""
    import httpx

    try:
        local = httpx.URL(url).host in ("127.0.0.1", "localhost")
        httpx.get(f"{url.rstrip('/')}/health", timeout=REACH_SECONDS, trust_env=not local)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return True  # an answer of whatever kind is one
