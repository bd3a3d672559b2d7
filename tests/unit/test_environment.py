"""The record of what a training ran on."""

import json
import platform
from pathlib import Path

import pytest
import torch

from stages.common import environment
from stages.common.environment import HARDWARE, training_environment, with_earlier

EPYC = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9B14\nflags\t: sse"


def test_it_names_what_decides_bytes_and_nothing_that_is_this_machines_own(one_thread: None) -> None:
    current = training_environment("bfloat16")
    assert {*HARDWARE, "python", "transformers", "numpy"} < set(current)
    assert (current["threads"], current["precision"], current["torch"]) == ("1", "bfloat16", torch.__version__)
    assert not [own for own in (platform.node(), str(Path.cwd()), str(Path.home())) if own in json.dumps(current)]


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (f"{EPYC}\n\n{EPYC.replace('9B14', 'other')}\n", "AMD EPYC 9B14 (family 25, model 17)"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: asimd\n", platform.processor() or platform.machine()),
    ],
)
def test_a_processor_has_a_name(cpuinfo: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    assert environment.processor() == name


def test_a_training_that_went_on_elsewhere_records_both(tmp_path: Path) -> None:
    note = tmp_path / "environment.json"
    first = {"processor": "A", "threads": "2", "torch": "2.13"}
    second = first | {"threads": "4", "torch": "3"}
    both = {"processor": "A", "threads": "2, then 4", "torch": "2.13, then 3"}
    for resumed in (False, True):  # begun, cut short and gone on with, all on one machine
        assert with_earlier(first, note, resumed) == first
    for _ in range(2):
        assert with_earlier(second, note, resumed=True) == both
    assert with_earlier(second, note, resumed=False) == second, "a training that begins anew knows of no earlier one"
    note.write_text('{"thre')
    assert with_earlier(first, note, resumed=True) == first, "a note that was never finished says nothing"
