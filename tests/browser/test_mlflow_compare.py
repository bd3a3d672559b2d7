"""MLflow's compare page in a real Chromium: it tells two runs of this project apart by params and scores."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from stages.tracking import store
from stages.tracking.live import LiveRun
from stages.tracking.publish import publish_run, reports_up_to
from stages.tracking.runs import model_digest
from tests.projects import PROJECT, params_of, without_mlflow
from tests.waiting import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=15000"),
)
TRIES = 5  # of a page that asks its server many things, on a busy machine
SECONDS = 60


@dataclass(frozen=True)
class Server:
    """MLflow with two runs, at a learning rate of 0.0002 and of 0.003, and 83.7 % and 61.2 % of the rows right."""

    address: str
    folder: Path
    compare: str


def training(client, learning_rate: float, accuracy: float) -> str:
    """Record a training as the stages do, and return its run."""
    params = params_of(finetune={"learning_rate": learning_rate}, register={"model_name": "films"})
    model = Path("models/finetuned")
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.safetensors").write_text(str(learning_rate))
    reports = {"reports/plots/training.csv": "step,epoch,loss\n1,0.5,0.7\n2,1.0,0.6\n"}
    scores = {"rows": 80, "accuracy": accuracy, "accuracy_low": accuracy - 0.05, "macro_f1": accuracy - 0.01}
    reports["reports/metrics.json"] = json.dumps(scores)
    for path, content in reports.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    live = LiveRun(params, str(learning_rate), {"attune.threads": "2"})
    live.log({"loss": 0.7}, 1)
    live.finish(model_digest(model), [Path("reports/plots/training.csv")])
    return publish_run(client, params, model, reports_up_to())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import mlflow

    folder, before = tmp_path_factory.mktemp("compare"), mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        without_mlflow(patch)
        patch.chdir(folder)
        shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
        client = store.connect()
        runs = [training(client, 2e-4, 0.837), training(client, 3e-3, 0.612)]
        experiment = client.get_run(runs[0]).info.experiment_id
    mlflow.set_tracking_uri(before)
    port = free_port()
    command = ["-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, process, folder / "log")
        asked = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
        yield Server(address, folder, f"{address}/#/compare-runs?{asked}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            urlopen(f"{address}/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def seen(server: Server, *options: str) -> str:
    """Open the compare page; return its elements once it has its tables."""
    assert CHROMIUM
    page = ""
    for number in range(TRIES):
        profile = server.folder / f"profile{len(list(server.folder.glob('profile*')))}"
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "--window-size=1600,2600", *options]
        done = subprocess.run([*command, server.compare], capture_output=True, text=True, timeout=90, check=True)
        page = done.stdout
        if options[0] != "--dump-dom" or ">finetune.learning_rate</th>" in page:
            return page
        time.sleep(number)
    raise AssertionError(f"the page does not come up: {page[-2000:]}")


def rows(page: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of the tables of params and tags, by name."""
    found = re.findall(r'<th scope="row"[^>]*>([^<]+)</th>(.*?)</tr>', page, re.DOTALL)
    return {name: tuple(map(html.unescape, re.findall(r">([^<]+)<", cells))) for name, cells in found}


def scores(page: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of the grid of metrics, by name: one column of names, and then the values row by row."""
    part = page.partition(">Metrics<")[2].partition(">Artifacts<")[0]
    names = re.findall(r'title="Plot chart"[^>]*>([^<]+)<', part)
    values = re.findall(r'data-state="closed">([^<]+)</span>', part)
    return {name: tuple(values[2 * at : 2 * at + 2]) for at, name in enumerate(names)}


def test_the_compare_page_shows_both_learning_rates_and_both_test_scores(server: Server) -> None:
    page = seen(server, "--dump-dom")
    assert rows(page)["finetune.learning_rate"] == ("0.0002", "0.003")
    assert rows(page)["finetune.num_train_epochs"] == ("2", "2")
    assert scores(page)["test_accuracy"] == ("0.837", "0.612")
    assert "full lr=0.0002 epochs=2 seed=13 scratch" in page and "full lr=0.003" in page


def test_a_picture_of_it_can_be_had(server: Server) -> None:
    picture = server.folder / "compare.png"
    seen(server, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 50_000
