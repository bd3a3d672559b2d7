"""The record of what a training ran on."""

import json
import platform
from pathlib import Path

import pytest
import torch

from stages.common import environment
from stages.common.environment import HARDWARE, environment_of, tags, training_environment, with_earlier
from stages.common.pipeline.graph import read_graph
from tests.projects import PROJECT

EPYC = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9B14\nflags\t: sse"


def test_it_names_what_decides_bytes_and_nothing_that_is_this_machines_own(one_thread: None) -> None:
    found = training_environment("bfloat16")
    own = {"processor", "architecture", "instructions", "device", "threads", "processes", "precision", "python"}
    assert set(found) == {*own, "packages"}
    assert set(HARDWARE) < own
    assert found["threads"] == 1
    assert found["precision"] == "bfloat16"
    assert found["packages"]["torch"] == torch.__version__
    assert {"transformers", "numpy", "polars", "onnxruntime"} <= set(found["packages"])
    text = json.dumps(found)
    assert platform.node() not in text
    assert str(Path.cwd()) not in text and str(Path.home()) not in text


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (f"{EPYC}\n\n{EPYC.replace('9B14', 'other')}\n", "AMD EPYC 9B14 (family 25, model 17)"),
        ("processor\t: 0\nmodel name\t: ARMv8 Processor rev 1\n", "ARMv8 Processor rev 1"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: asimd\n", platform.processor() or platform.machine()),
    ],
    ids=["x86", "a name alone", "without a name"],
)
def test_a_processor_has_a_name(cpuinfo: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    assert environment.processor() == name


def test_a_training_that_went_on_elsewhere_tells_of_both(tmp_path: Path) -> None:
    note = tmp_path / "environment.json"
    here = {"threads": 2, "processor": "A", "packages": {"torch": "2.13.0", "numpy": "2"}}
    there = {**here, "threads": 4, "packages": {"torch": "2.14.0", "numpy": "2"}}
    both = {**here, "threads": "2, then 4", "packages": {"torch": "2.13.0, then 2.14.0", "numpy": "2"}}
    assert with_earlier(here, note, resumed=False) == here
    assert with_earlier(here, note, resumed=True) == here  # cut short and gone on with, all on one machine
    assert with_earlier(there, note, resumed=True) == both
    assert with_earlier(there, note, resumed=True) == both  # and once more
    assert with_earlier(here, note, resumed=True)["threads"] == "2, then 4, then 2"
    assert with_earlier(there, note, resumed=False) == there, "a training that begins anew knows of no earlier one"


@pytest.mark.parametrize("left", [None, '{"thre'])
def test_a_note_that_was_never_finished_says_nothing(left: str | None, tmp_path: Path) -> None:
    note = tmp_path / "environment.json"
    if left is not None:
        note.write_text(left)
    assert with_earlier({"threads": 4}, note, resumed=True) == {"threads": 4}
    assert json.loads(note.read_text()) == {"threads": 4}


def test_its_tags_in_mlflow_give_it_back_by_name() -> None:
    found = {"threads": 2, "processes": 1, "packages": {"torch": "2.13.0+cpu"}}
    assert tags(found) == {"attune.threads": "2", "attune.processes": "1", "attune.torch": "2.13.0+cpu"}
    others = {"attune.model": "0" * 64, "mlflow.user": "somebody"}
    assert environment_of({**tags(found), **others}) == {"threads": "2", "processes": "1", "torch": "2.13.0+cpu"}


def test_it_is_in_no_out() -> None:
    assert not [out for node in read_graph(PROJECT).values() for out in node.outs if "environment" in out]
