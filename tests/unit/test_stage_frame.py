"""The frame of every stage: outs whole or not at all, only what the graph declares, no network but in ingest."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.common.digests import sha256_path, sha256_value
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from stages.common.params import IngestParams
from stages.common.pipeline.graph import read_graph
from stages.common.pipeline.stage import Run, alone, stage, write_json
from tests.projects import PROJECT, Project
from tests.waiting import until

GRAPH = """\
stages:
  ingest:
    desc: The only stage of this graph
    cmd: python -m stages.ingest
    deps: [data/inbox, lonely.txt]
    params: [seed, ingest]
    outs: [out/table.txt: {persist: true}, out/folder]
    metrics: [out/report.json: {cache: false}]
"""
OUTS = {"out/table.txt": "old table", "out/folder/one.txt": "old one", "out/report.json": "old report"}

Body = Callable[[Run[IngestParams]], None]


@pytest.fixture
def framed(project: Project) -> Project:
    """A project whose graph is one stage, with the outs of an earlier run."""
    project.file("dvc.yaml", GRAPH)
    for path, content in OUTS.items():
        project.file(path, content)
    return project


def execute(body: Body) -> int:
    """Run a body in the frame of the stage `ingest`, which leaves this process's network open."""
    with pytest.raises(SystemExit) as ended:
        stage("ingest")(body)()
    return int(ended.value.code or 0)


def outs(project: Project) -> dict[str, str]:
    return {path: (project.root / path).read_text() for path in OUTS if (project.root / path).exists()}


def write_all(run: Run[IngestParams]) -> None:
    run.output("out/table.txt").write_text("new table")
    run.output("out/folder").mkdir()
    (run.output("out/folder") / "two.txt").write_text("new two")
    write_json({"rows": 1}, run.output("out/report.json"))


@pytest.mark.parametrize("fault", [None, AttuneError("a gate failed", keep_outs=True)])
def test_a_stage_that_succeeds_or_explains_its_failure_replaces_every_out_as_a_whole(
    framed: Project, fault: AttuneError | None
) -> None:
    def body(run: Run[IngestParams]) -> None:
        write_all(run)
        if fault:
            raise fault

    assert execute(body) == int(fault is not None)
    assert (framed.root / "out/table.txt").read_text() == "new table"
    assert [file.name for file in (framed.root / "out/folder").iterdir()] == ["two.txt"]
    assert json.loads((framed.root / "out/report.json").read_text()) == {"rows": 1}


@pytest.mark.parametrize(
    ("fault", "code"),
    [(AttuneError("the data is odd", "mend it"), 1), (ValueError("a bug"), 1), (KeyboardInterrupt(), 130)],
    ids=["something the user can mend", "a bug", "ctrl-c"],
)
def test_a_stage_that_fails_leaves_the_earlier_outs_byte_for_byte(
    framed: Project, fault: BaseException, code: int
) -> None:
    def body(run: Run[IngestParams]) -> None:
        write_all(run)
        raise fault

    assert execute(body) == code
    assert outs(framed) == OUTS
    assert not list((framed.root / ".attune").rglob("table.txt")), "half-made outs were left behind"


@pytest.mark.parametrize("failing", range(1, 7))
def test_a_disk_that_fails_while_outs_are_put_in_place_leaves_the_earlier_ones(
    framed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: int
) -> None:
    real, calls = os.replace, []

    def broken(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", broken)
    assert execute(write_all) == 1
    assert outs(framed) == OUTS
    assert not list((framed.root / "out").rglob(".*")), "something was left beside the outs"
    message = capsys.readouterr().err
    assert "No space left on device" in message and "Traceback" not in message


def test_a_stage_runs_once_at_a_time_in_a_checkout_and_downloads_once_at_a_time_into_a_shared_folder(
    framed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone("ingest"):
        assert execute(write_all) == 1
    assert "ingest is running in this checkout already" in capsys.readouterr().err
    assert outs(framed) == OUTS
    with ThreadPoolExecutor() as pool:
        with in_turn(framed.root / ".attune" / "downloads" / ".lock"):
            code = pool.submit(execute, write_all)
            until(lambda: "waits for another run that downloads" in capsys.readouterr().out)
            assert outs(framed) == OUTS
        assert code.result(20) == 0


def test_a_fault_told_in_the_terminal_commands_it_nothing(framed: Project, capsys: pytest.CaptureFixture[str]) -> None:
    def body(run: Run[IngestParams]) -> None:
        raise AttuneError("a.csv: the column \x1b[2J\udcff\u202e\n  and another line", "mend it")

    assert execute(body) == 1
    assert "column ⟨U+001B⟩[2J⟨U+DCFF⟩⟨U+202E⟩\n  and another line\n  → mend it\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("use", "path", "kind"),
    [
        *((Run.output, path, "outs") for path in ("out/else.txt", "out", "out/folder/inner.txt")),
        *((Run.input, path, "deps") for path in ("params.yaml", "data")),
    ],
)
def test_a_file_that_the_graph_does_not_declare_is_an_error(
    framed: Project, capsys: pytest.CaptureFixture[str], use: Callable[[Run[Any], str], Path], path: str, kind: str
) -> None:
    assert execute(lambda run: print(use(run, path))) == 1
    assert f"dvc.yaml does not list {path} among the {kind} of ingest" in capsys.readouterr().err


def test_a_missing_out_or_input_and_wrong_params_are_errors_and_replace_nothing(
    framed: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(lambda run: run.output("out/table.txt").write_text("new") and None) == 1
    assert "did not write out/folder, out/report.json" in capsys.readouterr().err and outs(framed) == OUTS
    assert execute(lambda run: print(run.input("lonely.txt"))) == 1
    assert "ingest stopped: lonely.txt is missing\n  → run the pipeline from the start" in capsys.readouterr().err
    framed.params(seed="thirteen")
    assert execute(write_all) == 1
    assert "params.yaml:" in capsys.readouterr().err and outs(framed) == OUTS


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────

PROBE = """
import socket, sys
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import stage
from urllib.request import urlopen

def send(*ancillary):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendmsg([b"x"], *ancillary, ("192.0.2.1", 53)) if ancillary else probe.sendto(b"x", ("192.0.2.1", 53))

ATTEMPTS = {
    "loopback": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2),
    "localhost": lambda: socket.create_connection(("localhost", int(sys.argv[1])), 2),
    "address": lambda: socket.create_connection(("192.0.2.1", 80), 2),
    "IPv6 address": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    "look up": lambda: socket.getaddrinfo("attune.invalid", 80),
    "old look up": lambda: socket.gethostbyname("attune.invalid"),
    "reverse look up": lambda: socket.gethostbyaddr("192.0.2.1"),
    "name of an address": lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    "datagram": send,
    "message": lambda: send([], 0),
    "tracking server by name": lambda: socket.getaddrinfo("Tracking.invalid", 80),
}

@stage("evaluate")
def main(run):
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
            print(f"{name}: done")
        except AttuneError:
            print(f"{name}: refused")
        except OSError:
            print(f"{name}: tried")  # it was let through, and the test machine has no such host
    urlopen("http://192.0.2.1/model.bin", timeout=2)

main()
"""


def probe(project: Project, **environment: str) -> tuple[dict[str, str], str]:
    """Return what became of each attempt, and the standard error."""
    project.file("probe.py", PROBE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = project.python("probe.py", str(server.getsockname()[1]), **environment)
    assert done.returncode == 1
    return dict(line.split(": ", 1) for line in done.stdout.splitlines()), done.stderr


def test_a_stage_after_ingest_reaches_this_machine_and_nothing_else(project: Project) -> None:
    results, error = probe(project)
    assert (results.pop("loopback"), results.pop("localhost")) == ("done", "done")
    del results["evaluate"]  # the stage's own first line
    assert set(results.values()) == {"refused"} and len(results) == 9
    message = "evaluate stopped: the stage evaluate tried to reach 192.0.2.1, but only ingest may use the network"
    assert message in error and "Traceback" not in error


def test_the_tracking_server_alone_is_excepted_by_its_name(project: Project) -> None:
    results, _ = probe(project, MLFLOW_TRACKING_URI="http://tracking.invalid:5000")
    assert results["tracking server by name"] == "tried"
    assert (results["look up"], results["datagram"]) == ("refused", "refused")


# ── the graph ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "stages",
    [
        ["first: {outs: [rows: {persist: true}]}", "middle: {deps: [rows/a.csv, elsewhere], outs: [model/weights]}",
         "last: {deps: [model]}"],
        ["first: {deps: [rows-old/x], outs: [other]}", "last: {deps: [other], outs: [rows]}"],
    ],
    ids=["in any order", "names that only begin alike"],
)  # fmt: skip
def test_a_stage_comes_after_the_stages_whose_outs_it_reads(tmp_path: Path, stages: list[str]) -> None:
    lines = [f"  {stage[:-1]}, cmd: x}}\n" for stage in stages]
    for order in (lines, lines[::-1]):
        (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(order))
        assert list(read_graph(tmp_path)) == [stage.partition(":")[0] for stage in stages]


def test_a_graph_that_is_none_is_an_error(tmp_path: Path) -> None:
    circle = "stages:\n  a: {cmd: a, deps: [two], outs: [one]}\n  b: {cmd: b, deps: [one], outs: [two]}\n"
    graphs = {circle: "wait for each other", "stages:\n  a: [": "is not understood", "[]": "is not understood"}
    with pytest.raises(AttuneError, match=r"(?s)no dvc.yaml.*project's folder"):
        read_graph(tmp_path)
    for text, message in graphs.items():
        (tmp_path / "dvc.yaml").write_text(text)
        with pytest.raises(AttuneError, match=message):
            read_graph(tmp_path)


def test_the_task_of_params_is_filled_in_as_dvc_does_and_nothing_else(tmp_path: Path) -> None:
    asks = "stages:\n  a: {cmd: 'cp by/${task} .', deps: ['by/${task}'], outs: ['${task}.txt': {cache: false}]}\n"
    project = Project(tmp_path).begin({"dvc.yaml": asks, "params.yaml": "task: multi-label\n"})
    (node,) = read_graph(tmp_path).values()
    with Repo(str(tmp_path)) as repo:
        (known,) = repo.index.stages
        assert node.cmd == known.cmd == "cp by/multi-label ."
        assert [*node.deps, *node.outs] == [str(path.def_path) for path in (*known.deps, *known.outs)]
    for task in ("", "task: 3", "task: ../../etc", "[]"):
        project.file("params.yaml", task)
        with pytest.raises(AttuneError, match=r"dvc.yaml asks for the task, and this is none"):
            read_graph(tmp_path)
    project.file("params.yaml", "task: multi-label\n")
    project.file("dvc.yaml", asks.replace("{task}", "{seed}"))
    with pytest.raises(AttuneError, match=r"\$\{seed\} is not filled in"):
        read_graph(tmp_path)


NODES = read_graph(PROJECT)
ENTRIES = YAML(typ="safe", pure=True).load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", NODES)
def test_a_stage_depends_on_its_own_code_and_params_and_on_what_there_is(name: str) -> None:
    made = {out for node in NODES.values() for out in node.outs}
    code = "".join(file.read_text(encoding="utf-8") for file in (PROJECT / "stages" / name).glob("*.py"))
    assert {f"stages/{name}", *(["stages/common/text"] if name == "clean" else [])} <= {*NODES[name].deps}
    assert {name} <= {*NODES[name].params} <= {name, "seed", "task"}
    assert ("run.seed" in code) <= ("seed" in NODES[name].params)
    assert [dep for dep in NODES[name].deps if dep not in made and not (PROJECT / dep).exists()] == []


@pytest.mark.parametrize("name", NODES)
def test_a_stage_is_found_again_in_dvcs_run_cache_but_for_the_one_that_registers(name: str) -> None:
    """DVC keeps no run of a stage with an out that persists, or a plain one that it does not cache."""
    outs = [(kind, out) for kind in ("outs", "metrics", "plots") for out in ENTRIES[name].get(kind, [])]
    settings = [(kind, {} if isinstance(out, str) else next(iter(out.values()))) for kind, out in outs]
    assert {out.get("persist", False) for _, out in settings} == {name == "register"}
    assert {out.get("cache", True) for kind, out in settings if kind == "outs"} == {name != "register"}


# ── digests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_digest_of_a_folder_follows_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return sha256_path(tmp_path / name)

    first = folder("first", {"a.py": "1", "b/c.py": "2"})
    assert folder("same", {"b/c.py": "2", "a.py": "1", "__pycache__/a.pyc": "x"}) == first
    others = [{"a.py": "1", "b/d.py": "2"}, {"a.py": "1", "b/c.py": "3"}, {"a.py": "1b/c.py", "b/c.py": "2"}]
    assert first not in [folder(str(number), files) for number, files in enumerate(others)]


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_value({"a": 1, "ä": ["x", True]}) == sha256_value({"ä": ["x", True], "a": 1})
    assert sha256_value({"a": 1}) != sha256_value({"a": "1"}) != sha256_value({"a": "1", "b": None})


def programs_end(command: str, **variables: str) -> tuple[int, bytes, str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "python": sys.executable, **variables}
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=PROJECT, env=environment, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("program", ["stages.common.params", "stages.clean", "stages.tracking.publish", "flows.plan"])
def test_ctrl_c_during_the_imports_ends_a_program_without_a_traceback(program: str, tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = programs_end(f"$python -m {program}", PYTHONPATH=f"{tmp_path}:{PROJECT}")
    assert ended == (130, b"", "")


@pytest.mark.parametrize(
    ("command", "status"),
    [("stages.common.params --schema | head -1", 141), ("flows.champion --help | true", 0)],
)
def test_a_closed_pipe_ends_a_program_without_a_traceback(command: str, status: int) -> None:
    code, _, errors = programs_end(f"$python -m {command}")
    assert (code, errors) == (status, "")


def test_what_the_encoding_of_a_terminal_lacks_is_printed_as_its_code() -> None:
    code, output, errors = programs_end("$python -m stages.common.params --reference", PYTHONIOENCODING="latin-1")
    assert (code, errors) == (0, "") and b"\\u2013" in output
