"""Several training processes in one frame: one writes and speaks, the others help, and one failure is told once."""

import os
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import AttuneError
from stages.common.params import FinetuneParams
from stages.common.pipeline.stage import Run, stage
from stages.finetune.machine import join, wanted
from tests.projects import Project

GRAPH = """\
stages:
  ingest:
    desc: The only stage of this graph
    cmd: python -m stages.ingest
    params: [seed, ingest]
    outs: [out.txt]
"""


@pytest.fixture
def framed(project: Project) -> Project:
    project.file("dvc.yaml", GRAPH)
    project.file("out.txt", "old")
    return project


def execute(body: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        stage("ingest")(body)()
    return int(ended.value.code or 0)


def be(monkeypatch: pytest.MonkeyPatch, rank: int, local_rank: int | None = None) -> None:
    local = rank if local_rank is None else local_rank
    for name, value in {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def test_a_process_beside_the_first_is_quiet_and_takes_no_lock(
    framed: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    codes = []

    def second(run: Run[Any]) -> None:
        print("from the second")
        assert not run.leads

    def first(run: Run[Any]) -> None:
        assert run.leads
        be(monkeypatch, 1)
        codes.append(execute(second))  # while the first holds the lock
        run.output("out.txt").write_text("new")

    be(monkeypatch, 0)
    codes.append(execute(first))
    assert codes == [0, 0]
    assert Path("out.txt").read_text() == "new"
    said = capfd.readouterr().out
    assert "from the second" not in said
    assert said.count("ingest: done") == 1


def test_of_a_failure_before_they_know_of_each_other_one_of_each_machine_tells(
    framed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: Run[Any]) -> None:
        raise AttuneError("something is missing", "find it")

    told = []
    for rank, local_rank in ((0, 0), (1, 1), (1, 0)):
        be(monkeypatch, rank, local_rank)
        assert execute(broken) == 1
        told.append("something is missing" in capsys.readouterr().err)
    assert told == [True, False, True]


def test_a_lost_partner_is_no_bug_of_the_process_that_lost_it(
    framed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lonely(run: Run[Any]) -> None:
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:3763")

    be(monkeypatch, 0)
    assert execute(lonely) == 1
    assert "another process of this training has ended" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert execute(lonely) == 1
    assert "Traceback" in capsys.readouterr().err


def test_who_starts_others_is_none_of_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.params(finetune={"nproc_per_node": 3})
    assert wanted() == 3
    be(monkeypatch, 0)
    assert wanted() == 0
    monkeypatch.delenv("RANK")
    project.file("params.yaml", "finetune: {nproc_per_node: many}")
    assert wanted() == 0  # the stage says what is wrong with it


@pytest.mark.parametrize(
    ("knobs", "environment", "told"),
    [
        ({"nproc_per_node": 4}, {}, "torchrun has started 2 processes, but finetune.nproc_per_node is 4"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "does not divide models"),
    ],
)
def test_what_would_be_ignored_is_refused(
    monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any], environment: dict[str, str], told: str
) -> None:
    import torch

    monkeypatch.setattr("stages.finetune.machine.end_with_parent", lambda: None)
    be(monkeypatch, 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7), raising=False)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with pytest.raises(AttuneError, match=told):
        join(FinetuneParams(**knobs))
    assert threads == [3]  # two processes share the cores
