"""A person's own file works by editing params alone, and what came of it can be reviewed."""

import json
import random
from pathlib import Path

import polars as pl
import pytest

from flows import review as program
from flows.reviewing.findings import Review
from flows.reviewing.verdict import verdict_of
from stages.common.params import load_params
from tests.projects import OF_RUNS, Project, pipeline_project, tiny

WORDS = {
    "表扬": ["很好", "喜欢", "满意", "推荐", "漂亮", "快"],
    "投诉": ["太差", "退货", "失望", "坏了", "慢", "生气"],
    "提问": ["请问", "怎么", "多少钱", "什么时候", "哪里", "吗"],
}


def chinese_csv(rows: int, labels: list[str]) -> str:
    """Return a table with a byte order mark, and a quoted newline and a quoted comma in every text."""
    draw = random.Random(1)
    lines = ["\ufeff编号,意见,类别"]
    for number in range(rows):
        label = draw.choice(labels)
        text = "".join(draw.choices(WORDS[label], k=6)) + f"\n第{number}号商品, 颜色{draw.randrange(10**6)}"
        lines.append(f'{number},"{text}",{label}')
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Project:
    """A project whose pipeline has run on a table of three classes that Git has; its results are committed."""
    project = pipeline_project(tmp_path_factory.mktemp("own_data") / "project", downloads)
    project.inbox("意见.csv", chinese_csv(240, list(WORDS)))
    project.use("own-csv")
    source = {"path": "data/inbox/意见.csv", "columns": {"text": "意见", "label": "类别"}}
    sections = {"clean": {"near_duplicates": {"shingle_size": 2}}, "export": {"onnx": False, "int8": False}}
    project.change(lambda params: params["ingest"].update(sources=[source]))
    project.change(tiny)
    project.change(lambda params: params.update(sections))
    project.change(lambda params: params["finetune"].update(learning_rate=1.0e-2, torch_num_threads=1))
    project.repro(OMP_NUM_THREADS="1")
    project.git("add", "-f", "data/inbox/意见.csv")
    project.commit("results")
    return project


def test_chinese_three_classes_quoted_newlines_and_a_bom(chinese: Project) -> None:
    raw = pl.read_parquet(chinese.root / "data/raw/records.parquet")
    assert raw.height == 240
    assert set(raw["label"]) == set(WORDS)
    assert raw["text"].str.contains("\n").all()
    metrics = json.loads((chinese.root / "reports/scores.json").read_text(encoding="utf-8"))
    assert set(metrics["per_class"]) == set(WORDS)
    assert metrics["baselines"]["tfidf"]["accuracy"] > metrics["baselines"]["majority"]["accuracy"]
    curve = pl.read_csv(chinese.root / "reports/plots/roc.csv")
    assert set(curve["label"]) == set(WORDS)


def test_another_learning_rate_is_reproduced_to_the_byte(chinese: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    chinese.git("checkout", "-q", "-b", "rate")
    chinese.change(lambda params: params["finetune"].update(learning_rate=1.0e-6))
    chinese.repro(OMP_NUM_THREADS="1")
    chinese.commit("a smaller learning rate")
    reviews = list[Review]()
    for name, value in {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(program, "verdict_of", lambda review: reviews.append(review) or verdict_of(review))
    monkeypatch.chdir(chinese.root)
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


def test_a_changed_file_runs_the_pipeline_again_and_one_that_is_no_good_costs_nothing(chinese: Project) -> None:
    spared = (*OF_RUNS, ".attune/*", "data/inbox/*", "logs/*")
    before = chinese.seen(*spared)
    chinese.inbox("意见.csv", chinese_csv(60, ["表扬"]))
    failed = chinese.repro(check=False)
    assert failed.returncode != 0 and "Traceback" not in failed.stderr
    assert "only the label '表扬'" in failed.stderr and "two labels" in failed.stderr
    assert chinese.seen(*spared) == before
    chinese.inbox("意见.csv", chinese_csv(250, list(WORDS)))
    assert chinese.stages_run(chinese.repro("clean")) == ["ingest", "clean"]
    assert pl.read_parquet(chinese.root / "data/raw/records.parquet").height == 250


def test_the_chinese_recipe_trains_on_a_small_slice(pipeline: Project) -> None:
    """What comes after the training is the same as in the tests of three Chinese classes above."""
    pipeline.use("chinese-reviews")

    def slice_of(params):
        params["ingest"]["limit"] = 300
        params["finetune"]["num_train_epochs"] = 1
        params["evaluate"].setdefault("bootstrap", {})["resamples"] = 100

    pipeline.change(slice_of)
    pipeline.repro("finetune")
    curves = pl.read_csv(pipeline.root / "reports/plots/validation.csv")
    assert set(curves["epoch"]) == {1.0} and curves["name"][0] == "loss"
    assert {"accuracy", "macro_f1", "macro_recall"} < set(curves["name"])
    encoding = json.loads((pipeline.root / "data/tokenized/encoding.json").read_text(encoding="utf-8"))
    assert len(encoding["labels"]) == 2
    recipe = load_params(pipeline.root / "params.yaml").register_
    assert recipe.model_name == "chinese-reviews" and recipe.gates.beat_baselines == ["majority", "tfidf"]
