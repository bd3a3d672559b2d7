"""A review by the real program, on a small project: what was recorded comes out again to the byte."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import review as program
from flows.reviewing.findings import Review
from flows.reviewing.verdict import verdict_of
from tests.pipeline.quick_stages import client, serving
from tests.pipeline.searched import rows
from tests.projects import Project, pipeline_project, tiny

ROWS = 150


def small(params: Any) -> None:
    params["ingest"]["sources"] = [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}]
    tiny(params)
    params["clean"] = {"near_duplicates": {"enabled": False}, "label_issues": {"action": "off"}}
    params["finetune"] |= {"learning_rate": 1.0e-2, "torch_num_threads": 1}
    params["export"] = {"onnx": False, "int8": False}
    params["evaluate"] |= {"baselines": ["majority"], "attributions": {"errors": 0, "sample": 0}}
    params["register"]["gates"] = {"beat_baselines": []}


@pytest.fixture
def project(tmp_path: Path, downloads: Path) -> Iterator[Project]:
    """A project whose pipeline has run with two learning rates, on main and on a branch, with people's rows in Git."""
    made = pipeline_project(tmp_path / "project", downloads)
    with serving(tmp_path / "socket"):
        made.file("quick.py", client(tmp_path / "socket"))
        graph = (made.root / "dvc.yaml").read_text()
        made.file("dvc.yaml", graph.replace("python -m stages.", "python quick.py "))
        made.inbox("rows.csv", "\n".join(["text,label", *rows(ROWS)]) + "\n")
        made.use("own-csv")
        made.change(small)
        made.repro(OMP_NUM_THREADS="1")
        made.git("add", "-f", "data/inbox/rows.csv")
        made.commit("results")
        made.git("checkout", "-q", "-b", "rate")
        made.change(lambda params: params["finetune"].update(learning_rate=1.0e-6))
        made.repro(OMP_NUM_THREADS="1")
        made.commit("a smaller learning rate")
        yield made


def test_another_learning_rate_is_reproduced_to_the_byte(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    reviews = list[Review]()
    for name, value in {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(program, "verdict_of", lambda review: reviews.append(review) or verdict_of(review))
    monkeypatch.chdir(project.root)
    assert program.main(["--base", "main"]) == 0
    (review,) = reviews
    assert review.rebuild.verdict == "identical"
    assert {out.verdict for out in review.rebuild.outs} == {"identical"}
    assert {"models/finetuned", "data/predictions.parquet"} <= {out.path for out in review.rebuild.outs}
    assert list(review.rebuild.seconds) == list(review.head.graph)
    assert review.changes
    assert [change[:3] for change in review.changes.params] == [("finetune.learning_rate", "0.01", "1e-06")]
    ran_again = [stage.stage for stage in review.changes.stages if stage.kind == "ran again"]
    assert ran_again == ["finetune", "export", "evaluate", "register"]
    assert review.effect and review.effect.rows > 10
    assert review.base and (review.base.results, review.head.results) == ("recorded", "recorded")
