"""A person's own file works by editing params alone."""

import json
import random

import polars as pl

from stages.common.params import load_params
from tests.projects import Project, tiny

WORDS = {
    "表扬": ["很好", "喜欢", "满意", "推荐", "漂亮", "快"],
    "投诉": ["太差", "退货", "失望", "坏了", "慢", "生气"],
    "提问": ["请问", "怎么", "多少钱", "什么时候", "哪里", "吗"],
}


def chinese_csv(rows: int, seed: int = 1) -> str:
    """Return a table of three labels with a quoted newline and a quoted comma in every text."""
    draw = random.Random(seed)
    lines = ["编号,意见,类别"]
    for number in range(rows):
        label = draw.choice(list(WORDS))
        text = "".join(draw.choices(WORDS[label], k=6)) + f"\n第{number}号商品, 颜色{draw.randrange(10**6)}"
        lines.append(f'{number},"{text}",{label}')
    return "\n".join(lines) + "\n"


def test_chinese_three_classes_quoted_newlines_and_a_bom(pipeline: Project) -> None:
    pipeline.inbox("意见.csv", "\ufeff" + chinese_csv(240))
    pipeline.use("own-csv")

    source = {"path": "data/inbox/意见.csv", "columns": {"text": "意见", "label": "类别"}}
    sections = {"clean": {"near_duplicates": {"shingle_size": 2}}, "export": {"onnx": False, "int8": False}}
    pipeline.change(lambda params: params["ingest"].update(sources=[source]))
    pipeline.change(tiny)
    pipeline.change(lambda params: params.update(sections))
    pipeline.repro("evaluate")
    raw = pl.read_parquet(pipeline.root / "data/raw/records.parquet")
    assert raw.height == 240
    assert set(raw["label"]) == set(WORDS)
    assert raw["text"].str.contains("\n").all()
    metrics = json.loads((pipeline.root / "reports/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["per_class"]) == set(WORDS)
    assert metrics["baselines"]["tfidf"]["accuracy"] > metrics["baselines"]["majority"]["accuracy"]
    curve = pl.read_csv(pipeline.root / "reports/plots/roc.csv")
    assert set(curve["label"]) == set(WORDS)

    # a changed file in the inbox runs the pipeline again, and nothing else has to be said
    pipeline.inbox("意见.csv", "\ufeff" + chinese_csv(250))
    assert pipeline.stages_run(pipeline.repro("clean")) == ["ingest", "clean"]
    assert pl.read_parquet(pipeline.root / "data/raw/records.parquet").height == 250


def test_the_chinese_recipe_trains_on_a_small_slice(pipeline: Project) -> None:
    """What comes after the training is the same as in the test of three Chinese classes above."""
    pipeline.use("chinese-reviews")

    def slice_of(params):
        params["ingest"]["limit"] = 300
        params["finetune"]["num_train_epochs"] = 1
        params["evaluate"].setdefault("bootstrap", {})["resamples"] = 100

    pipeline.change(slice_of)
    pipeline.repro("finetune")
    assert pl.read_csv(pipeline.root / "reports/plots/validation.csv").height == 1
    encoding = json.loads((pipeline.root / "data/tokenized/encoding.json").read_text(encoding="utf-8"))
    assert len(encoding["labels"]) == 2
    recipe = load_params(pipeline.root / "params.yaml").register_
    assert recipe.model_name == "chinese-reviews" and recipe.gates.beat_baselines == ["majority", "tfidf"]
