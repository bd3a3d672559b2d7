"""Batch prediction as programs run it: killed, twice at once, with much input, as a flow."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from inspect import signature
from pathlib import Path

import polars as pl
import pytest

from tests.models import FILLER, LABELS, TELLING
from tests.projects import PROJECT, Project
from tests.unit.small_decisions import label_decision

BATCH = 64
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}

# Predicts a tenth of the rows, then all of them, and says by how many MiB the second time took more than the first.
MEASURED = """
import resource, sys
from pathlib import Path
from flows.predict import Model, main

sizes, answers = [], Model.answers

def watched(self, *given):
    result = answers(self, *given)
    sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    return result

Model.answers = watched
for kind in ("csv", "parquet"):
    peaks = []
    for part in ("few", "many"):
        sizes.clear()
        assert not main([f"{part}.{kind}", f"out.{kind}", *sys.argv[1:]])
        peaks.append(max(sizes))
    print("grown", kind, peaks[1] - peaks[0])
"""


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder, as the pipeline leaves it, with two labels it is never sure of."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, root / "finetuned")
    label_decision(list(LABELS), 1.5, {"good": 0.5}).write(root / "serving")
    return root


def texts(count: int) -> list[str]:
    draw = random.Random(1)
    words = [*FILLER, *(word for words in TELLING.values() for word in words)]
    return [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(count)]


def test_after_a_kill_it_ends_with_the_bytes_of_an_undisturbed_run(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.predict import main

    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"text": texts(60 * BATCH)}).write_csv("in.csv")
    options = ["--model", str(models), "--keep", "text", "--batch-rows", str(BATCH)]
    assert main(["in.csv", "whole.parquet", *options]) == 0
    parts = tmp_path / "out.parquet.parts"
    program = [sys.executable, "-m", "flows.predict", "in.csv", "out.parquet", *options]
    killed = subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(parts.glob("*.parquet"))) < 10:
        assert killed.poll() is None and time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)
    assert main(["in.csv", "out.parquet", *options]) == 1
    assert "another process is writing out.parquet" in capsys.readouterr().err
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not Path("out.parquet").exists()
    assert main(["in.csv", "out.parquet", *options]) == 0
    assert "going on after row" in capsys.readouterr().out
    for name in ("parquet", "parquet.drift.json"):
        assert Path(f"out.{name}").read_bytes() == Path(f"whole.{name}").read_bytes()
    assert not parts.exists() and pl.read_parquet("out.parquet")["text"].to_list() == texts(60 * BATCH)


def test_ten_times_the_rows_take_no_more_memory(models: Path, tmp_path: Path) -> None:
    more = "x" * 20_000  # 10 MB of rows, and 100 MB; in a column that is kept, because tokens take their time
    for name, count in {"few": 500, "many": 5_000}.items():
        rows = pl.DataFrame({"text": ["the film"] * count, "more": [f"{number} {more}" for number in range(count)]})
        rows.write_csv(tmp_path / f"{name}.csv")
        rows.write_parquet(tmp_path / f"{name}.parquet")
    options = ["--model", str(models), "--keep", "more", "--batch-rows", str(BATCH)]
    done = Project(tmp_path).run("python", "-c", MEASURED, *options, OMP_NUM_THREADS="1")
    grown = {line.split()[1]: float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("grown")}
    assert set(grown) == {"csv", "parquet"} and max(grown.values()) < 40, grown


def test_the_command_line_needs_neither_prefect_nor_torch_to_say_what_is_wrong(tmp_path: Path) -> None:
    code = "import sys; from flows.predict import main; main(['a.csv', 'b.txt']); print(*sys.modules)"
    done = Project(tmp_path).python("-c", code)
    assert not {"prefect", "torch", "transformers", "mlflow"} & set(done.stdout.split())
    assert "the name tells no format" in done.stderr


def test_the_flow_takes_what_the_program_takes_and_returns_its_counts(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.testing.utilities import prefect_test_harness

    from flows.on_demand import predict
    from flows.prediction.request import Request

    options = {field.name for field in fields(Request)}
    assert signature(predict.fn).parameters.keys() == options | {"fail_on_drift"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(texts(20)))
    with prefect_test_harness(server_startup_timeout=60):
        assert predict("in.csv", "out.csv", model=str(models))["rows"] == 20
        with pytest.raises(Exception, match="has no column 'body'"):
            predict("in.csv", "out.csv", model=str(models), text="body")
    assert pl.read_csv(tmp_path / "out.csv").height == 20
