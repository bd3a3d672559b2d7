"""Several training processes in one frame: one failure is reported once."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.pipeline.stage import Run, stage
from stages.finetune.machine import join
from tests.projects import Project

INGEST = {"desc": "The only stage", "cmd": "python -m stages.ingest", "params": ["ingest"], "outs": ["out.txt"]}


def be(monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int, processes: int = 2) -> None:
    """Be one of so many training processes, of which two run on this machine."""
    for name, value in {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def execute(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the body of a stage as one of the processes, and returns the exit status."""
    project.file("dvc.yaml", {"stages": {"ingest": INGEST}})

    def run(body: Callable[[Run[Any]], None], *process: int) -> int:
        be(monkeypatch, *process)
        with pytest.raises(SystemExit) as raised:
            stage("ingest")(body)()
        return int(raised.value.code or 0)

    return run


MISSING, LOST = AttuneError("it is missing"), RuntimeError("[pair.cc:553] Connection closed by peer [::1]:3763")


@pytest.mark.parametrize(
    ("process", "error", "reported"),
    [
        # before the processes know of each other, one of each machine reports a failure
        ((1, 1), MISSING, ""),
        ((1, 0), MISSING, "it is missing"),
        # a lost partner is no bug of the process that lost it
        ((0, 0), LOST, "another process of this training has ended"),
        ((0, 0, 1), LOST, "Traceback"),
    ],
)
def test_a_failure_is_reported_where_it_happened_and_once(
    execute: Any, capsys: pytest.CaptureFixture[str], process: tuple[int, ...], error: Exception, reported: str
) -> None:
    def failing(run: Run[Any]) -> None:
        raise error

    assert execute(failing, *process) == 1
    printed = capsys.readouterr().err
    assert reported in printed and bool(printed) == bool(reported)


def test_what_would_be_ignored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, 0, 0)
    threads: list[int] = []
    monkeypatch.setattr("stages.finetune.machine.end_with_parent", lambda: None)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7), raising=False)
    with pytest.raises(AttuneError, match=r"torchrun has started 2 processes, but finetune.nproc_per_node is 4"):
        join(FinetuneParams(nproc_per_node=4))
    assert threads == [3]  # two processes share the cores
