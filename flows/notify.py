"""Messages of failed runs and of new champions, to the Webhook block `attune` of Prefect's server if there is one.

`python -m flows.notify --test` sends a message to try it; docs/notifications.md says how to make the block.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.command import exit_status
from flows.told.artifact import before
from flows.told.deadline import within
from flows.told.markdown import plain
from flows.told.reports import SCORES
from flows.told.rival import Known, look_up
from flows.told.run_summary import Before, new_champion
from stages.common.errors import AttuneError
from stages.common.params import load_params

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

BLOCK = "attune"
VARIABLE = "attune_webhook"  # of the server: the name of another block
TRY_SECONDS, TRIES, PAUSE_SECONDS = 4.0, 3, 1.0
SECONDS = 20.0  # for all of it
REASON = 300  # characters shown
AGAIN = (408, 425, 429)  # answers that a second try may change, besides the server's own errors


class NotSent(Exception):
    """The receiver did not take the message; the reason names no address."""


class NoBlock(Exception):
    """There is nobody to tell."""


def tell_failure(flow: "Flow[Any, Any]", flow_run: "FlowRun", state: "State[Any]") -> None:
    """Tell of a run that failed, took too long or crashed; a hook for `on_failure` and `on_crashed`.

    A run that was cancelled is no news to who cancelled it.
    """
    if state.is_cancelled() or state.is_cancelling():
        return
    stage, reason = _what_failed(state)
    payload = {"event": "attune.failed", "stage": stage, "reason": reason}
    how = "crashed" if state.is_crashed() else "failed"
    _tell(payload, f"{how}{f' at {stage}' if stage else ''}: {reason}", flow.name, flow_run)


def tell_promotion(earlier: Before) -> None:
    """Tell of a new champion, if the run that ends here has made one.

    Args:
        earlier: what the reports said before it.
    """
    now = before()
    if not new_champion(earlier, now):
        return
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    payload, what = _promotion(now, _known(now))
    flow_name = context.flow.name if context and context.flow else "attune"
    _tell(payload, what, flow_name, context.flow_run if context else None)


def _promotion(now: Before, known: Known) -> tuple[dict[str, Any], str]:
    name = plain(now.registration["model_name"])
    scores = {label: {"old": known.rival_scores.get(key), "new": now.metrics.get(key)} for label, key in SCORES.items()}
    told = ", ".join(f"{label} {_change(one['old'], one['new'])}" for label, one in scores.items())
    version = f"version {known.version}" if known.version else "a new version"
    payload = {
        "event": "attune.promoted",
        "model": name,
        "version": known.version,
        "version_before": known.rival,
        "scores": scores,
    }
    return payload, f"{version} of {name} is the champion now: {told}"


def _change(old: float | None, new: float | None) -> str:
    return " → ".join(f"{one:.4f}" for one in (old, new) if one is not None) or "unknown"


def _known(now: Before) -> Known:
    try:
        params = load_params()
        return look_up(now.registration["model"], params.register_.model_name, params.tracking.experiment_name)
    except Exception:  # the summary has said so
        return Known()


def _what_failed(state: "State[Any]") -> tuple[str | None, str]:
    """Return the stage that failed, if one did, and why, in a line."""
    error = state.data if isinstance(state.data, BaseException) else None
    if error is None:
        error = getattr(state.data, "result", None)  # a result kept in memory alone
    outcomes: Mapping[str, Any] = getattr(error, "outcomes", {})
    stage = next((name for name, one in outcomes.items() if one.state == "failed"), None)
    if stage is None:
        said = error.what if isinstance(error, AttuneError) else str(error or state.message or state.name)
        return None, _harmless(said)
    ended, lines = outcomes[stage].reason, [line.strip() for line in outcomes[stage].last_lines if line.strip()]
    told = [line for line in lines if line.startswith(f"{stage} stopped: ")]  # what the stage has for people
    told = told or [line for line in lines if not line.startswith(("→", "ERROR: failed to reproduce"))]
    said = ": ".join(part for part in (ended, *told[-1:]) if part and part != "failed")
    return _harmless(stage), _harmless(said or "failed")


def _harmless(text: str) -> str:
    """Return foreign text as a chat may show it: no link, no image, nobody called, no secret."""
    marks = str.maketrans({"<": "‹", ">": "›", "`": "'", "[": "(", "]": ")", "@": "＠", "|": "¦"})
    return plain(text, REASON).translate(marks)


def _tell(payload: dict[str, Any], what: str, flow_name: str, flow_run: "FlowRun | None") -> None:
    """Send a message; whatever goes wrong costs a warning and some seconds."""
    from prefect.logging import get_logger
    from prefect.logging.loggers import flow_run_logger

    logger = flow_run_logger(flow_run) if flow_run is not None else get_logger("attune")
    try:
        within(SECONDS, lambda: asyncio.run(_send_about(payload, what, flow_name, flow_run)))
    except NoBlock:
        return
    except NotSent as error:
        logger.warning("the webhook %r could not be told: %s", BLOCK, error)
    except Exception as error:  # the receiver's troubles must not cost a run
        logger.warning("the webhook %r could not be told: %s", BLOCK, _kind(error))


async def _send_about(payload: dict[str, Any], what: str, flow_name: str, flow_run: "FlowRun | None") -> None:
    from prefect.client.orchestration import get_client
    from prefect.utilities.urls import url_for

    block = await _block_name()
    deployment, run, url = flow_name, None, None
    if flow_run is not None:
        run, url = flow_run.name, url_for("flow-run", obj_id=flow_run.id)
        if flow_run.deployment_id is not None:
            async with get_client() as client:
                deployment = f"{flow_name}/{(await client.read_deployment(flow_run.deployment_id)).name}"
    where = "".join(f" · {part}" for part in (run, url) if part)
    about = {"deployment": deployment, "flow_run": run, "url": url}
    await _send(block, {"text": f"{deployment}: {what}{where}", **payload, **about})


async def _block_name() -> str:
    """Return the block's name.

    Raises:
        NoBlock: if there is none of that name.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.exceptions import ObjectNotFound
    from prefect.variables import Variable

    name = str(await Variable.aget(VARIABLE, default=BLOCK))
    try:
        await Webhook.aload(name)
    except ValueError as error:
        if isinstance(error.__cause__, ObjectNotFound):
            raise NoBlock(name) from None
        raise
    return name


async def _send(name: str, payload: dict[str, Any]) -> int:
    """Send a message to a block; return the status that came back.

    Raises:
        NotSent: if no try was answered as it should be.
    """
    from prefect.blocks.webhook import Webhook

    reason = ""
    for number in range(TRIES):
        if number:
            await asyncio.sleep(PAUSE_SECONDS * number)
        block = await Webhook.aload(name)  # its connection is used up by one call
        try:
            response = await asyncio.wait_for(block.call(payload), TRY_SECONDS)
        except TimeoutError:
            reason = f"no answer within {TRY_SECONDS:g} s"
            continue
        except Exception as error:  # whose text may quote the address
            reason = _kind(error)
            continue
        if 200 <= response.status_code < 300:
            return int(response.status_code)
        reason = f"it answered {response.status_code}" + (", a redirect" if 300 <= response.status_code < 400 else "")
        if response.status_code < 500 and response.status_code not in AGAIN:
            break
    raise NotSent(reason)


def _kind(error: Exception) -> str:
    return "no answer" if isinstance(error, TimeoutError) else type(error).__name__


def main(arguments: list[str] | None = None) -> int:
    """Send a message to try the block."""
    parser = argparse.ArgumentParser(prog="python -m flows.notify", description="Messages of failures and promotions.")
    parser.add_argument("--test", action="store_true", required=True, help="send a message to try the webhook")
    parser.parse_args(arguments)
    return exit_status(_test, "interrupted")


def _test() -> None:
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:  # Prefect would start a server for this program alone
        raise AttuneError("PREFECT_API_URL is not set", "make services, and export what it prints")
    what = "a message to try the webhook; nothing happened"
    payload = {"text": f"attune: {what}", "event": "attune.test", "reason": what}

    async def send() -> tuple[str, int]:
        name = await _block_name()
        return name, await _send(name, payload)

    try:
        name, status = within(SECONDS, lambda: asyncio.run(send()))
    except NoBlock as error:
        raise AttuneError(
            f"Prefect's server has no Webhook block {str(error)!r}", "make one: docs/notifications.md"
        ) from None
    except NotSent as error:
        raise AttuneError(f"the message was not taken: {error}", "look at the block's URL and headers") from None
    except Exception as error:
        raise AttuneError(
            f"Prefect's server could not be asked for the block: {_kind(error)}",
            "make services, or set PREFECT_API_URL",
        ) from None
    print(f"the receiver of the block {name!r} took the message: {status}")


if __name__ == "__main__":
    sys.exit(main())
