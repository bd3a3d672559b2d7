"""A new task is a file of hooks and a file of facts: all stages, a review and the server take it as it is."""

import json
import random
import re
from pathlib import Path

import polars as pl
import pytest

from tests.projects import Project, pipeline_project, tiny

FACTS = """title = "the number of vowels of each text"
losses = ["squared"]
baselines = ["median"]
scores = [
  {name = "off_by", title = "vowels off", greater_is_better = false, unbounded = true},
  {name = "exact", title = "exactly right", share = true},
]
"""
ASK = """import json, mlflow, sys
print(mlflow.pyfunc.load_model("models:/tests/1").predict(json.loads(sys.argv[1])).to_json())
"""


def rows_csv() -> str:
    """Return a table of 200 texts of made-up words, with the number of vowels of each, and one that has none."""
    draw, lines = random.Random(3), ["text,vowels"]
    for _ in range(200):
        text = " ".join("".join(draw.choices("bdfgklmnprstaeiouaeiou", k=5)) for _ in range(draw.randint(1, 5)))
        lines.append(f"{text},{sum(map(text.count, 'aeiou'))}")
    return "\n".join([*lines, "no number,many", ""])


@pytest.fixture
def toy(tmp_path: Path, downloads: Path) -> Project:
    """The project with the toy task in `stages/tasks`, rows in the inbox, and nothing else changed."""
    project, tasks = pipeline_project(tmp_path / "project", downloads), "stages/tasks"
    project.file(f"{tasks}/vowel_count.py", Path(__file__).with_name("vowel_count.py").read_bytes())
    project.file(f"{tasks}/vowel-count.toml", FACTS)
    by_name = project.root / tasks / "by_name" / "vowel-count"
    by_name.mkdir()
    (by_name / "vowel_count").symlink_to("../../vowel_count.py")
    project.inbox("rows.csv", rows_csv())
    columns = {"text": "text", "label": "vowels"}
    project.params(task="vowel-count", clean={}, augment={}, export={})
    project.change(tiny)
    project.change(
        lambda params: params["ingest"].update(sources=[{"path": "data/inbox/rows.csv", "columns": columns}])
    )
    learnt = {"learning_rate": 3.0e-3, "num_train_epochs": 15, "per_device_train_batch_size": 8}
    project.change(lambda params: params["finetune"].update(learnt))
    project.change(lambda params: params["evaluate"].update(baselines=["median"], behaviour={"rows": 20}))
    project.change(lambda params: params["register"].update(model_name="tests", gates={"maximum": {"off_by": 9}}))
    project.git("add", "-f", "data/inbox/rows.csv")
    return project


def test_a_task_of_two_files_runs_all_stages_a_review_and_the_server(toy: Project, tmp_path: Path) -> None:
    toy.all_stages()
    toy.commit("results")
    scores = json.loads((toy.root / "reports/scores.json").read_text())
    test = pl.read_parquet(toy.root / "data/clean/test.parquet").select("id", "text")
    predictions = pl.read_parquet(toy.root / "data/predictions.parquet").join(test, "id", maintain_order="left")
    assert predictions["prediction"].n_unique() > 5  # it has learnt something, on any machine
    off = (predictions["prediction"].cast(pl.Float64) - predictions["label"].cast(pl.Float64)).abs()
    assert scores["off_by"] == pytest.approx(off.mean(), abs=1e-6)
    assert scores["off_by_low"] <= scores["off_by"] <= scores["off_by_high"]
    assert scores["baselines"]["median"].keys() >= {"exact_gain", "off_by_gain_low", "mcnemar_p"}
    rejected = pl.read_parquet(toy.root / "data/raw/rejected.parquet")
    assert rejected["reason"].to_list() == ["this is no number of vowels"]

    elsewhere = Project(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    texts = [*predictions["text"], " "]
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{toy.root / 'mlflow.db'}", "PYTHONPATH": ""}
    served = elsewhere.python("-c", ASK, json.dumps(texts), **store)
    assert "not the model's own" not in served.stderr, "the task travels with the model"
    answers = json.loads(served.stdout)["vowels"].values()
    assert [*answers] == [*predictions["prediction"].cast(pl.Float64), 0.0]

    text, label = pl.read_parquet(toy.root / "data/clean/train.parquet").select("text", "label").row(0)
    toy.inbox("rows.csv", rows_csv().replace(f"{text},{label}\n", f"{text},40\n"))
    toy.all_stages()
    toy.commit("another label")
    done = toy.python("-m", "flows.review", "--base", "HEAD~1", "--no-rebuild")
    assert done.returncode == 0, done.stderr
    review = (toy.root / "logs/review.md").read_text()
    assert "Relabelled: 1" in review and f"`{label}` | `40`" in review
    assert re.search(r"(Better|Worse|No clear difference):\*\* vowels off [-+]0\.\d{4} \[", review)
    assert "| `off_by` |" in review and "By slice: exactly right" in review
