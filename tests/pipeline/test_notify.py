"""The automations of the repository on a real server: what a receiver of their messages gets."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.blocks.webhook import Webhook
from prefect.events import Event
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from tests.pipeline.prefect_server import PrefectServer
from tests.projects import PROJECT, RECIPE
from tests.waiting import until

SECRET = "op3n-sesame-8"
# The end of a flow of the project, without stages and without MLflow.
FLOW = """
import json, sys
from pathlib import Path
from prefect import flow
from flows.execution.stage_process import Outcome
from flows.reporting import artifact
from flows.reporting.reports import read_reports
from stages.common.errors import AttuneError

artifact.previous_champion = lambda *_: (1, {"accuracy": 0.8, "macro_f1": 0.8})

@flow(name="attune-tested", persist_result=False)
def run(how):
    earlier = read_reports()
    if how == "failed":
        raise AttuneError("the stage clean failed: <!channel> @all \\"quoted\\"", "mend it")
    both = {"model_name": "rotten-tomatoes", "model": "new", "gates": [], "package": "p", "new_champion": True}
    registered = {**both, "version": 2, "alias": "champion", "promoted": True}
    scores = {"accuracy": 0.82, "macro_f1": 0.82}
    Path("reports").mkdir(exist_ok=True)
    Path("logs").mkdir(exist_ok=True)
    reports = {"reports/scores": scores, "reports/registration": both, "logs/registered": registered}
    for name, content in reports.items():
        Path(f"{name}.json").write_text(json.dumps(content))
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
    """A server with a Webhook block and the automations of the repository."""
    with temporary_settings({PREFECT_API_URL: server.environment["PREFECT_API_URL"]}):
        block = Webhook(url=received[0], headers={"Content-Type": "application/json"}).save("attune")
    texts = [(PROJECT / "automations" / f"{name}.yaml").read_text() for name in ("webhook", "silent")]
    both = "automations:" + "".join(text.partition("automations:")[2] for text in texts)
    text = both.replace("BLOCK_ID", str(block)).replace("within: 600", "within: 10")
    (server.home / "automations.yaml").write_text(text)
    server.run("prefect", "automation", "create", "--from-file", "automations.yaml", cwd=server.home)
    return server


def test_failures_and_new_champions_are_told_and_a_champion_that_stays_is_not(
    server: PrefectServer, received: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    messages = received[1]
    (tmp_path / "flow.py").write_text(FLOW)
    (tmp_path / "params.yaml").write_text(RECIPE)
    command = (sys.executable, "flow.py", "promoted", "promoted", "failed")
    done = server.run(*command, cwd=tmp_path, PYTHONPATH=str(PROJECT))

    def received_of(name: str) -> list[dict[str, Any]]:
        return [message for message in messages if name in (message["event"], message.get("flow"))]

    until(lambda: received_of("attune.promoted") and received_of("attune-tested"))
    ((promoted,), (failed, *_)) = received_of("attune.promoted"), received_of("attune-tested")
    assert (promoted["model"], promoted["version"], promoted["version_before"]) == ("rotten-tomatoes", 2, 1)
    assert promoted["scores"]["accuracy"] == {"old": 0.8, "new": 0.82}
    assert "version 2 of rotten-tomatoes is the champion now, after version 1; macro-F1 0.8 → 0.82" in promoted["text"]
    assert failed["event"] == "prefect.flow-run.Failed" and failed["flow_run"] in failed["text"]
    assert re.fullmatch(rf"http://127.0.0.1:{server.port}/runs/flow-run/[0-9a-f-]{{36}}", failed["url"])
    assert 'the stage clean failed: ‹!channel> ＠all "quoted"' in failed["text"]
    assert SECRET not in done.stdout + done.stderr


def test_late_crashed_and_silent_runs_are_told_and_those_of_other_flows_are_not(
    server: PrefectServer, received: tuple[str, list[dict[str, Any]]]
) -> None:
    messages = received[1]
    messages.clear()
    runs = {}
    for name in ("other", "late", "crashed", "silent"):
        flow = server.post("flows/", name="theirs" if name == "other" else "attune-retrain")["id"]
        runs[name] = server.post("flow_runs/", flow_id=flow, name=name, state={"type": "RUNNING"})["id"]
    related = {"prefect.resource.id": "prefect.flow.x", "prefect.resource.role": "flow"}
    heartbeat = Event(
        event="prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{runs['silent']}"},
        related=[{**related, "prefect.resource.name": "attune-retrain"}],
    )
    server.post("events", [heartbeat.model_dump(mode="json")])
    late = {"type": "SCHEDULED", "name": "Late"}
    for name, state in {"other": {"type": "CRASHED"}, "crashed": {"type": "CRASHED"}, "late": late}.items():
        server.post(f"flow_runs/{runs[name]}/set_state", state=state, force=True)

    def events() -> set[tuple[str, str]]:
        """Of these runs alone: a message of an earlier one may come late."""
        return {(message["event"], message["flow_run"]) for message in messages if message.get("flow_run") in runs}

    until(lambda: len(events()) >= 3)
    assert events() == {
        ("prefect.flow-run.Late", "late"),
        ("prefect.flow-run.Crashed", "crashed"),
        ("prefect.flow-run.Crashed", "silent"),
    }


def test_the_automations_for_notification_blocks_are_prefects() -> None:
    text = (PROJECT / "automations" / "notification.yaml").read_text().replace("BLOCK_ID", str(uuid4()))
    for automation in YAML(typ="safe").load(text)["automations"]:
        assert set(automation) <= set(AutomationCore.model_fields)
        AutomationCore.model_validate(automation)
