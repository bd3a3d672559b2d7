"""The automations of the repository on a real server: what a receiver of their messages gets."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from tests.pipeline.prefect_server import PrefectServer
from tests.projects import PROJECT, RECIPE
from tests.waiting import until

SECRET = "op3n-sesame-8"
BLOCK = """
from prefect.blocks.webhook import Webhook
Webhook(url=input(), headers={"Content-Type": "application/json"}).save("attune")
"""
# The end of a flow of the project, without stages and without MLflow.
FLOW = """
import json, sys
from pathlib import Path
from prefect import flow
from flows.execution.stage_process import Outcome
from flows.reporting import artifact
from stages.common.errors import AttuneError

artifact.previous_champion = lambda *_: (1, {"accuracy": 0.8, "macro_f1": 0.8})

@flow(name="attune-tested", persist_result=False)
def run(how):
    earlier = artifact.before()
    if how == "failed":
        raise AttuneError("the stage clean failed: <!channel> @all \\"quoted\\"", "mend it")
    both = {"model_name": "rotten-tomatoes", "model": "new", "gates": [], "package": "p", "new_champion": True}
    for name, content in {
        "reports/metrics.json": {"accuracy": 0.82, "macro_f1": 0.82},
        "reports/registration.json": both,
        "logs/registered.json": {**both, "version": 2, "alias": "champion", "promoted": True},
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(json.dumps(content))
    artifact.publish({"register": Outcome("success")}, earlier)

for how in sys.argv[1:]:
    run(how, return_state=True)
"""


@pytest.fixture(scope="module")
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server that keeps what it is sent: its address, and the messages."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook/{SECRET}", messages
        server.shutdown()


@pytest.fixture(scope="module")
def server(server: PrefectServer, received: tuple[str, list[dict[str, Any]]]) -> PrefectServer:
    """A server with a Webhook block and the automations, made as docs/notifications.md says."""
    server.run("bash", "-c", f"{sys.executable} -c '{BLOCK}' <<< {received[0]}", cwd=server.home)
    block = api(server, "block_types/slug/webhook/block_documents/name/attune")["id"]
    for name in ("webhook", "silent"):
        text = (PROJECT / "automations" / f"{name}.yaml").read_text().replace("BLOCK_ID", block)
        (server.home / f"{name}.yaml").write_text(text.replace("within: 600", "within: 10"))
        server.run("prefect", "automation", "create", "--from-file", f"{name}.yaml", cwd=server.home)
    return server


def test_failures_and_new_champions_are_told_and_a_champion_that_stays_is_not(
    server: PrefectServer, received: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    messages = received[1]
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "params.yaml").write_text(RECIPE)
    done = server.run(
        sys.executable, "flow.py", "promoted", "promoted", "failed", cwd=tmp_path, PYTHONPATH=str(PROJECT)
    )
    until(lambda: {message["event"] for message in messages} == {"attune.promoted", "prefect.flow-run.Failed"})
    assert [message["event"] for message in messages].count("attune.promoted") == 1
    assert len({message.get("flow_run") for message in messages}) == 2, "one failed; on a slow machine it comes twice"
    told = {message["event"]: message for message in messages}
    promoted, failed = told["attune.promoted"], told["prefect.flow-run.Failed"]
    assert (promoted["model"], promoted["version"], promoted["version_before"]) == ("rotten-tomatoes", 2, 1)
    assert promoted["scores"]["accuracy"] == {"old": 0.8, "new": 0.82}
    assert "version 2 of rotten-tomatoes is the champion now" in promoted["text"]
    assert failed["flow"] == "attune-tested" and failed["flow_run"] in failed["text"]
    assert re.fullmatch(rf"http://127.0.0.1:{server.port}/runs/flow-run/[0-9a-f-]{{36}}", failed["url"])
    assert 'the stage clean failed: ‹!channel> ＠all "quoted"' in failed["text"]
    assert SECRET not in done.stdout + done.stderr


def test_late_crashed_and_silent_runs_are_told_and_those_of_other_flows_are_not(
    server: PrefectServer, received: tuple[str, list[dict[str, Any]]]
) -> None:
    messages = received[1]
    messages.clear()

    def new_run(name: str, flow: str = "attune-retrain") -> str:
        body = {"flow_id": api(server, "flows/", {"name": flow})["id"], "name": name, "state": {"type": "RUNNING"}}
        return str(api(server, "flow_runs/", body)["id"])

    other, late, crashed, silent = new_run("other", "theirs"), new_run("late"), new_run("crashed"), new_run("silent")
    heartbeat = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{silent}"},
        "related": [
            {
                "prefect.resource.id": "prefect.flow.x",
                "prefect.resource.role": "flow",
                "prefect.resource.name": "attune-retrain",
            }
        ],
    }
    api(server, "events", [heartbeat])
    for run_id in (other, crashed):
        api(server, f"flow_runs/{run_id}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    api(server, f"flow_runs/{late}/set_state", {"state": {"type": "SCHEDULED", "name": "Late"}, "force": True})

    def told() -> set[tuple[str, str]]:
        """Of these runs alone: a message of an earlier one may come late."""
        found = {(message["event"], message.get("flow_run", "")) for message in messages}
        return {(event, run) for event, run in found if run in ("other", "late", "crashed", "silent")}

    until(lambda: len(told()) >= 3)
    assert told() == {
        ("prefect.flow-run.Late", "late"),
        ("prefect.flow-run.Crashed", "crashed"),
        ("prefect.flow-run.Crashed", "silent"),
    }


def test_the_automations_for_notification_blocks_are_prefects() -> None:
    from prefect.events.schemas.automations import AutomationCore
    from ruamel.yaml import YAML

    text = (PROJECT / "automations" / "notification.yaml").read_text().replace("BLOCK_ID", str(uuid4()))
    for automation in YAML(typ="safe").load(text)["automations"]:
        assert set(automation) <= set(AutomationCore.model_fields)
        AutomationCore.model_validate(automation)


def api(server: PrefectServer, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    url, header = f"http://127.0.0.1:{server.port}/api/{path}", {"Content-Type": "application/json"}
    with urlopen(Request(url, data, header)) as answer:
        return json.loads(answer.read() or "null")
