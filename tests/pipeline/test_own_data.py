"""A person's own file works by editing params alone."""

import json
import random

import polars as pl

from stages.common.params import load_params
from tests.conftest import PROJECT, Project, tiny

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


def own_file(project: Project, name: str, columns: dict, **source: object) -> None:
    project.use("own-csv")

    def change(params):
        params["ingest"]["sources"] = [{"path": f"data/inbox/{name}", "columns": columns, **source}]
        params["clean"] = {"near_duplicates": {"shingle_size": 2}}
        tiny(params)
        params["export"] = {"onnx": False, "int8": False}

    project.params(change)


def test_chinese_three_classes_quoted_newlines_and_a_bom(project: Project) -> None:
    project.inbox("意见.csv", "\ufeff" + chinese_csv(240))
    own_file(project, "意见.csv", {"text": "意见", "label": "类别"})
    project.repro("evaluate")
    raw = pl.read_parquet(project.root / "data/raw/records.parquet")
    assert raw.height == 240
    assert set(raw["label"]) == set(WORDS)
    assert raw["text"].str.contains("\n").all()
    metrics = json.loads((project.root / "reports/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["per_class"]) == set(WORDS)
    assert metrics["baselines"]["tfidf"]["accuracy"] > metrics["baselines"]["majority"]["accuracy"]
    curve = pl.read_csv(project.root / "reports/plots/roc.csv")
    assert set(curve["label"]) == set(WORDS)

    # a changed file in the inbox runs the pipeline again, and nothing else has to be said
    project.inbox("意见.csv", "\ufeff" + chinese_csv(250))
    assert project.stages_run(project.repro("clean")) == ["ingest", "clean"]
    assert pl.read_parquet(project.root / "data/raw/records.parquet").height == 250


def test_latin_1_bytes_semicolons_and_mapped_labels(project: Project) -> None:
    lines = [f"{'très réussi, à voir' if n % 2 else 'raté, décevant'} nº {n} {n * 7919};{n % 2}" for n in range(60)]
    project.inbox("avis.csv", ("avis;note\n" + "\n".join(lines)).encode("latin-1"))
    own_file(project, "avis.csv", {"text": "avis", "label": "note"}, encoding="latin-1", separator=";")
    project.params(lambda params: params["ingest"].update(labels={"0": "mauvais", "1": "bon"}))
    project.repro("clean")
    train = pl.read_parquet(project.root / "data/clean/train.parquet")
    assert set(train["label"]) == {"mauvais", "bon"}
    assert train["text"].str.contains("é").all()


def test_an_official_split_is_honoured(project: Project) -> None:
    rows = [
        f"text number {n * 7919} of {n},{'ab'[n % 2]},{('train', 'train', 'dev', 'test')[n % 4 if n % 8 else 0]}"
        for n in range(96)
    ]
    # both labels in every split
    rows += [
        f"held out {n * 104729} {n},{'ab'[n % 2]},{split}" for n, split in enumerate(["dev", "dev", "test", "test"])
    ]
    project.inbox("split.csv", "body,tag,part\n" + "\n".join(rows))
    own_file(project, "split.csv", {"text": "body", "label": "tag", "split": "part"})
    project.repro("clean")
    raw = pl.read_parquet(project.root / "data/raw/records.parquet")
    for name in ("train", "validation", "test"):
        placed = pl.read_parquet(project.root / f"data/clean/{name}.parquet").join(raw, on="id", suffix="_raw")
        assert set(placed["split"]) == {name}


def test_there_are_these_recipes_and_no_other() -> None:
    """rotten-tomatoes is run by test_end_to_end, own-csv by test_bad_input, chinese-reviews below."""
    recipes = {path.stem for path in (PROJECT / "recipes").glob("*.yaml")}
    assert recipes == {"rotten-tomatoes", "own-csv", "chinese-reviews"}


def test_the_chinese_recipe_trains_on_a_small_slice(project: Project) -> None:
    """What comes after the training is the same as in the test of three Chinese classes above."""
    project.use("chinese-reviews")

    def slice_of(params):
        params["ingest"]["limit"] = 300
        params["finetune"]["num_train_epochs"] = 1
        params["evaluate"].setdefault("bootstrap", {})["resamples"] = 100

    project.params(slice_of)
    project.repro("finetune")
    assert pl.read_csv(project.root / "reports/plots/validation.csv").height == 1
    encoding = json.loads((project.root / "data/tokenized/encoding.json").read_text(encoding="utf-8"))
    assert len(encoding["labels"]) == 2
    recipe = load_params(project.root / "params.yaml").register_
    assert recipe.model_name == "chinese-reviews" and recipe.gates.beat_baselines == ["majority", "tfidf"]
