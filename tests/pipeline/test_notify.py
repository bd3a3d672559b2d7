"""Messages about runs: what a receiver gets, from a real flow and from a real server; and that none costs a run."""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from stages.common.tracking.champions import champion_number, promote
from stages.common.tracking.runs import MODEL_TAG
from tests.conftest import PROJECT
from tests.pipeline.prefect_server import PrefectServer, prefect_server

SECRET = "op3n-sesame-8"
PATH = f"/hook/{SECRET}"

# What a flow of the project does at its end, without its stages.
FLOWS = """
import json, os, sys, time
from pathlib import Path
from prefect import flow
from flows.told.artifact import before, publish
from flows.notify import tell_failure, tell_promotion
from flows.running.outcome import Outcome
from stages.common.errors import AttuneError

class StageFailed(AttuneError):
    outcomes = {}

@flow(name="attune-tested", log_prints=True, persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def run(how: str = "well"):
    outcomes = {"register": Outcome("success", 1.0, "new")}
    lines = ("clean stopped: <!channel> @all [x](http://evil) https://me:hunter22@host", "  → mend it", "ERROR: failed")
    earlier = before()
    if how == "promoted":
        for name in ("reports/metrics.json", "reports/registration.json", "logs/registered.json"):
            Path(name).write_text((Path("new") / name).read_text())
    if how == "failed":
        outcomes = {"ingest": Outcome("cached"), "clean": Outcome("failed", 2.0, "failed", lines)}
    publish(outcomes, earlier)
    if how == "failed":
        error = StageFailed("the stage clean failed", "mend it")
        error.outcomes = outcomes
        raise error
    tell_promotion(earlier)

if __name__ == "__main__":
    for how in sys.argv[1:]:
        started = time.monotonic()
        state = run(how, return_state=True)
        print(f"seconds {how}", time.monotonic() - started)
"""


@dataclass
class Receiver:
    """A web server that takes messages, in the way that a test asks for."""

    server: ThreadingHTTPServer
    answers: list[int] = field(default_factory=list)  # the next ones; then 200. 0: none at all
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{PATH}"

    def taken(self) -> list[dict[str, Any]]:
        """Return the messages since the last look."""
        bodies, self.got = [body for _, body in self.got], []
        return bodies


@contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = here.answers.pop(0) if here.answers else 200
            if not answer:
                time.sleep(8)
                return
            here.got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(answer)
            self.send_header("Location", f"http://127.0.0.1:{here.server.server_port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here = Receiver(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield here
        server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(scope="module")
def hook(server: PrefectServer, project: Path) -> Iterator[Receiver]:
    with receiver() as running:
        make_block(server, project, running.url)
        yield running


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reports of a run, those of the next below `new`, and a registry that has both models."""
    root = tmp_path_factory.mktemp("project")
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.create_experiment("attune", artifact_location="nowhere")
    client.create_registered_model("rotten-tomatoes")
    for version, (model, folder, score) in enumerate((("old", root, 0.8), ("new", root / "new", 0.82)), start=1):
        run_id = client.create_run(experiment, tags={MODEL_TAG: model}).info.run_id
        client.log_metric(run_id, "test_accuracy", score)
        client.create_model_version("rotten-tomatoes", "runs:/x/model", run_id=run_id, tags={MODEL_TAG: model})
        promote(client, "rotten-tomatoes", version, champion_number(client, "rotten-tomatoes"))
        scores = {f"{name}{end}": score for name in ("accuracy", "macro_f1") for end in ("", "_low", "_high")}
        both = {"model_name": "rotten-tomatoes", "model": model, "gates": []}
        here = {"version": version, "alias": "champion", "new_champion": True, "promoted": True}
        for name, content in {
            "reports/metrics.json": {"rows": 9, **scores},
            "reports/registration.json": {**both, "package": f"{model} and all", "passed": True},
            "logs/registered.json": {**both, **here},
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    (root / "params.yaml").write_bytes((PROJECT / "recipes" / "rotten-tomatoes.yaml").read_bytes())
    (root / "flow.py").write_text(FLOWS)
    return root


def make_block(server: PrefectServer, project: Path, url: str) -> None:
    """Make the block as docs/notifications.md says, with the URL on standard input."""
    told = (PROJECT / "docs" / "notifications.md").read_text()
    program = re.search(r"python -c '(.*?)'$", told, re.DOTALL | re.MULTILINE)
    assert program
    code = "\n".join(line.strip() for line in program[1].splitlines()).replace('getpass("URL: ")', "input()")
    command = f"{sys.executable} -c '{code}' <<< {url}"
    server.run("bash", "-c", command, cwd=project)


def run(server: PrefectServer, project: Path, *hows: str) -> tuple[str, list[float]]:
    """Run the flow once for each word; return what it said, and the seconds of each run."""
    where = {"PYTHONPATH": str(PROJECT), "REVIEWS_TOKEN": SECRET, "MLFLOW_TRACKING_URI": ""}
    done = server.run(sys.executable, "flow.py", *hows, cwd=project, **where)
    said = done.stdout + done.stderr
    return said, [float(found) for found in re.findall(r"^seconds \w+ ([\d.]+)", said, re.MULTILINE)]


def program(server: PrefectServer, check: bool = True, **more: str) -> tuple[int, str]:
    """Send a message to try the block; return the exit status, and what was said."""
    done = server.run(sys.executable, "-m", "flows.notify", "--test", cwd=PROJECT, check=check, **more)
    return done.returncode, done.stdout + done.stderr


def artifact(server: PrefectServer) -> dict[str, Any]:
    """Return the newest summary."""
    [newest] = api(server, "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["attune-run"]}}})
    return dict(newest)


def api(server: PrefectServer, path: str, body: Any = None) -> Any:
    from urllib.request import Request, urlopen

    data = None if body is None else json.dumps(body).encode()
    url, header = f"http://127.0.0.1:{server.port}/api/{path}", {"Content-Type": "application/json"}
    with urlopen(Request(url, data, header)) as answer:
        return json.loads(answer.read() or "null")


def until(found: Callable[[], Any], seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.3)
    return value


def test_without_a_block_nothing_happens_and_nothing_is_said(server: PrefectServer, project: Path) -> None:
    said, _ = run(server, project, "failed")
    assert "the stage clean failed" in said and "webhook" not in said.lower()
    code, said = program(server, check=False)
    assert code == 1 and "no Webhook block 'attune'" in said and "docs/notifications.md" in said


def test_failures_and_new_champions_are_told_and_a_champion_that_stays_is_not(
    server: PrefectServer, project: Path, hook: Receiver
) -> None:
    said, _ = run(server, project, "failed")
    summary = artifact(server)
    [failure] = hook.taken()
    assert (failure["event"], failure["deployment"], failure["stage"]) == ("attune.failed", "attune-tested", "clean")
    assert failure["reason"] == "clean stopped: ‹!channel› ＠all (x)(http://evil) https://me:***＠host"
    assert failure["text"].startswith("attune-tested: failed at clean: clean stopped: ‹!channel›")
    assert failure["flow_run"] in failure["text"] and "\n" not in failure["text"]
    assert re.fullmatch(rf"http://127.0.0.1:{server.port}/runs/flow-run/[0-9a-f-]{{36}}", failure["url"])
    assert summary["data"].startswith("**Failed at `clean`.**") and summary["flow_run_id"] in failure["url"]
    assert "→ mend it" in summary["data"] and "hunter22" not in summary["data"] + json.dumps(failure)
    assert SECRET not in said

    run(server, project, "promoted", "promoted")
    [promotion] = hook.taken()
    assert promotion["event"] == "attune.promoted"
    assert (promotion["model"], promotion["version"], promotion["version_before"]) == ("rotten-tomatoes", 2, 1)
    assert promotion["scores"]["accuracy"] == {"old": 0.8, "new": 0.82}
    assert "version 2 of rotten-tomatoes is the champion now: accuracy 0.8000 → 0.8200" in promotion["text"]
    summary = artifact(server)
    assert summary["data"].startswith("**`rotten-tomatoes` version 2 stays champion.**")
    assert re.search(r"`make ui`, then <http://127.0.0.1:5000/#/experiments/1/runs/[0-9a-f]{32}>", summary["data"])


def test_a_receiver_that_fails_gets_the_message_again(server: PrefectServer, project: Path, hook: Receiver) -> None:
    hook.answers = [500]
    assert "took the message: 200" in program(server)[1]
    assert [one["event"] for one in hook.taken()] == ["attune.test"] * 2


def test_a_receiver_that_does_not_take_it_costs_seconds_and_a_warning_without_its_address(
    server: PrefectServer, project: Path, hook: Receiver
) -> None:
    hook.answers = [500, 500, 0, 404, 307]
    said, seconds = run(server, project, "failed", "failed", "failed")
    assert len(hook.taken()) == 4 and hook.answers == []
    reasons = ["no answer within 4 s", "it answered 404", "it answered 307, a redirect"]
    assert re.findall(r"could not be told: (.*)", said) == reasons
    assert said.count("the stage clean failed") >= 3 and SECRET not in said and "/hook" not in said
    assert max(seconds) < 25


def test_a_receiver_or_a_server_that_is_away_is_told_without_its_address(
    server: PrefectServer, project: Path, hook: Receiver, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        make_block(server, project, f"http://127.0.0.1:{free.getsockname()[1]}{PATH}")
        code, said = program(server, check=False)
    make_block(server, project, hook.url)
    assert code == 1 and "not taken: ConnectError" in said and SECRET not in said
    code, said = program(PrefectServer(tmp_path, 9), check=False)
    assert code == 1 and "could not be asked" in said
    code, said = program(PrefectServer(tmp_path, 9), check=False, PREFECT_API_URL="")
    assert code == 1 and "PREFECT_API_URL is not set" in said and "block" not in said


def test_the_automations_of_the_docs_tell_of_late_crashed_and_silent_runs(
    server: PrefectServer, project: Path, hook: Receiver
) -> None:
    told = (PROJECT / "docs" / "notifications.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", told, re.DOTALL)
    assert found and "within: 600" in found[1]
    block = api(server, "block_types/slug/webhook/block_documents/name/attune")["id"]
    (project / "automations.yaml").write_text(found[1].replace("BLOCK_ID", block).replace("within: 600", "within: 10"))
    server.run("prefect", "automation", "create", "--from-file", "automations.yaml", cwd=project)

    def new_run(name: str, *tags: str) -> str:
        flow = api(server, "flows/", {"name": "attune-tested"})["id"]
        body = {"flow_id": flow, "name": name, "tags": tags, "state": {"type": "RUNNING"}}
        return str(api(server, "flow_runs/", body)["id"])

    other, late, crashed = new_run("other"), new_run("late", "attune"), new_run("crashed", "attune")
    silent = new_run("silent", "attune")
    heartbeat = {"prefect.resource.id": f"prefect.flow-run.{silent}", "prefect.resource.name": "silent"}
    tag = {"prefect.resource.id": "prefect.tag.attune", "prefect.resource.role": "tag"}
    event = {"occurred": None, "event": "prefect.flow-run.heartbeat", "resource": heartbeat, "related": [tag]}
    emit(server, event)
    for run_id in (other, crashed):
        api(server, f"flow_runs/{run_id}/set_state", {"state": {"type": "CRASHED"}, "force": True})
    api(server, f"flow_runs/{late}/set_state", {"state": {"type": "SCHEDULED", "name": "Late"}, "force": True})
    messages: list[dict[str, Any]] = []

    def all_told() -> bool:
        messages.extend(hook.taken())
        return len(messages) >= 3

    until(all_told)
    assert {(one["event"], one["flow_run"]) for one in messages} == {
        ("attune.late", "late"),
        ("attune.crashed", "crashed"),
        ("attune.crashed", "silent"),
    }
    assert all(one["text"].startswith("attune-tested: run ") for one in messages)
    assert all(one["url"].startswith(f"http://127.0.0.1:{server.port}/runs/flow-run/") for one in messages)


def emit(server: PrefectServer, event: dict[str, Any]) -> None:
    from datetime import UTC, datetime
    from uuid import uuid4

    api(server, "events", [{**event, "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}])
