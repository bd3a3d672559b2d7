"""What a run made before is not lost: killed stages get their outs back, and DVC's run cache works."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.execution.stage_process import StageRunner
from stages.common.pipeline.dvc_status import restore_outs
from tests.projects import PROJECT, RECIPE, Project
from tests.waiting import until

STAGE = """
import json, os, signal, time
from pathlib import Path
from stages.common.pipeline.stage import stage

@stage("clean")
def main(run):
    with open("ran.txt", "a") as file:
        print(run.seed, file=file)
    do = json.loads(Path("do.json").read_text())
    folder = run.output("data/rows")
    folder.mkdir()
    (folder / "part").write_text(f"rows of seed {run.seed}")
    run.output("data/empty").mkdir()
    run.output("reports/scores.json").write_text(json.dumps({"seed": run.seed}))
    Path("begun").touch()
    time.sleep(do.get("sleep", 0))

main()
"""
GRAPH = f"""
stages:
  clean:
    cmd: {sys.executable} work.py
    deps: [work.py]
    params: [seed]
    outs: [data/rows, data/empty]
    metrics: [reports/scores.json: {{cache: false}}]
"""
FILES = {"dvc.yaml": GRAPH, "work.py": STAGE, "do.json": "{}", "params.yaml": RECIPE}
FILES[".gitignore"] = "/data/\n/.attune/\n/logs/\n/ran.txt\n/begun\n"


class Toy(Project):
    """A checkout whose one stage runs in the real frame, and does what do.json says."""

    def do(self, **what: float) -> None:
        self.file("do.json", what)
        (self.root / "begun").unlink(missing_ok=True)

    def seed(self, seed: int) -> None:
        self.change(lambda params: params.update(seed=seed))

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, *command], cwd=self.root, start_new_session=True)

    def outs(self) -> dict[str, str | list[str]]:
        rows, empty, scores = (self.root / path for path in ("data/rows/part", "data/empty", "reports/scores.json"))
        made: dict[str, str | list[str]] = {str(path): path.read_text() for path in (rows, scores) if path.exists()}
        return made | ({str(empty): [file.name for file in empty.iterdir()]} if empty.exists() else {})

    def ran(self) -> list[str]:
        return (self.root / "ran.txt").read_text().split()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    project = Toy(tmp_path_factory.mktemp("template") / "toy").begin(FILES)
    project.seed(1)
    project.repro()
    return project


@pytest.fixture
def toy(template: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A checkout that has run with seed 1."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return template.copy(tmp_path / "toy")


@pytest.mark.parametrize("how", ["make", "flow"])
def test_after_a_stage_was_killed_its_earlier_outs_are_put_back(toy: Toy, how: str) -> None:
    before = toy.outs()
    toy.seed(2)
    toy.do(sleep=300)
    if how == "flow":
        runner = StageRunner(toy.root)
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(runner.run, "clean", 60.0, toy.root / "log.txt", print)
            until((toy.root / "begun").exists)
            runner.end()
            assert ended.result()[0] not in (0, None)
    else:
        process = toy.start("-m", "dvc", "repro")
        until((toy.root / "begun").exists)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert toy.outs() == {}, "there is something to put back"
        toy.run(sys.executable, "-m", "flows.prepare", "--outs")
    assert toy.outs() == before and len(before) == 3
    assert restore_outs(root=toy.root) == []


def test_a_setting_that_is_changed_back_runs_nothing_again(toy: Toy) -> None:
    first = toy.outs()
    for seed in (2, 1):
        toy.seed(seed)
        toy.reproduced()
        assert (toy.outs() == first) == (seed == 1)
    assert toy.ran() == ["1", "2"]


def test_a_stage_waits_for_another_dvc_command_before_it_ends(toy: Toy) -> None:
    """Else DVC could not have its lock back within three seconds, and would throw the finished work away."""
    holder = (
        "import time\nfrom dvc.repo import Repo\nfrom pathlib import Path\n"
        "while not Path('begun').exists(): time.sleep(0.01)\n"
        "with Repo().lock: time.sleep(5)"
    )
    toy.seed(2)
    toy.do(sleep=1)
    other = toy.start("-c", holder)
    done = toy.repro()
    other.wait(20)
    assert "waits for another dvc command" in done.stdout
    assert toy.reproduced() == [] and toy.ran() == ["1", "2"]
