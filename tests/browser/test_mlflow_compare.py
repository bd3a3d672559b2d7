"""MLflow's compare page in a real Chromium: it tells two runs of this project apart by params and scores."""

import html
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from stages.common.digests import sha256_path
from stages.tracking import store
from stages.tracking.live import LiveRun
from stages.tracking.publish import publish_run, reports_up_to
from tests.browser.test_pages import chromium, needs_chromium
from tests.projects import PROJECT, Project, params_of, without_mlflow
from tests.waiting import free_port, server

pytestmark = needs_chromium
TRIES = 5  # of a page that asks its server many things, on a busy machine


def training(client: MlflowClient, project: Project, learning_rate: float, accuracy: float) -> str:
    """Record a training as the stages do, and return its run."""
    params = params_of(finetune={"learning_rate": learning_rate}, register={"model_name": "films"})
    model = project.file("models/finetuned/model.safetensors", str(learning_rate)).parent
    curve = project.file("reports/plots/training.csv", "step,epoch,name,value\n1,0.5,loss,0.7\n2,1.0,loss,0.6\n")
    project.file("reports/scores.json", {"rows": 80, "accuracy": accuracy, "macro_f1": accuracy - 0.01})
    live = LiveRun(params, str(learning_rate), {"attune.threads": "2"})
    live.log({"loss": 0.7}, 1)
    live.finish(sha256_path(model), [curve])
    return publish_run(client, params, model, reports_up_to())


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A compare page of two runs: learning rates of 0.0002 and 0.003, 83.7 % and 61.2 % of the rows right."""
    without_mlflow(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    Project(tmp_path).params()  # in which dvc.yaml looks for the task
    client = store.connect()
    runs = [training(client, Project(tmp_path), *values) for values in ((2e-4, 0.837), (3e-3, 0.612))]
    experiment = client.get_run(runs[0]).info.experiment_id
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    with server([*command, "--workers", "1", "--port", str(port)], f"{address}/health", tmp_path / "log"):
        yield f"{address}/#/compare-runs?runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"


def elements(address: str, folder: Path) -> str:
    """Open the compare page; return its elements once it has its tables."""
    page = ""
    for number in range(TRIES):
        page = chromium(address, folder / f"profile{number}", "1600,2600", 15_000)
        if ">finetune.learning_rate</th>" in page:
            return page
        time.sleep(number)
    raise AssertionError(f"the page does not come up: {page[-2000:]}")


def test_the_compare_page_shows_both_learning_rates_and_both_test_scores(address: str, tmp_path: Path) -> None:
    page = elements(address, tmp_path)
    rows = dict(re.findall(r'<th scope="row"[^>]*>([^<]+)</th>(.*?)</tr>', page, re.DOTALL))
    params = {name: [html.unescape(cell) for cell in re.findall(r">([^<]+)<", cells)] for name, cells in rows.items()}
    assert params["finetune.learning_rate"] == ["0.0002", "0.003"]
    assert params["finetune.num_train_epochs"] == ["2", "2"]
    assert "full lr=0.0002 epochs=2 seed=13 scratch" in page and "full lr=0.003" in page
    # The grid of metrics has one column of names, and then the values row by row.
    grid = page.partition(">Metrics<")[2].partition(">Artifacts<")[0]
    index = re.findall(r'title="Plot chart"[^>]*>([^<]+)<', grid).index("test_accuracy")
    values = re.findall(r'data-state="closed">([^<]+)</span>', grid)
    assert values[2 * index : 2 * index + 2] == ["0.837", "0.612"]
