"""Each recipe of another task than the default's runs from its source to the registry, on a slice with a tiny model."""

import json
import random
from typing import Any

import polars as pl
import pytest

from stages.common.params import load_params
from tests.projects import TINY, Project

QUICK: dict[str, Any] = {
    "tokenize": {"max_length": 32},
    "finetune": {"num_train_epochs": 1, "logging_steps": 4},
    "evaluate": {"bootstrap": {"resamples": 100}, "attributions": {"errors": 1, "sample": 1, "steps": 4}},
}
QUICK_CHAT: dict[str, Any] = {
    "tokenize": {"max_length": 192},
    "finetune": {"num_train_epochs": 1, "logging_steps": 4},
    "evaluate": {"bootstrap": {"resamples": 100}, "generation": {"rows": 8, "max_new_tokens": 8}},
}
COMMON = {name: name for name in ("ind", "other", "def", "count", "desc", "manner")}  # enough rows each in a slice


def tags(rows: int) -> str:
    """Lines as the recipe's comment describes them."""
    draw = random.Random(1)
    lines = []
    for number in range(rows):
        labels = [tag for tag in ("graphics", "terminal", "library") if draw.random() < 0.4]
        text = f"{' and '.join(labels) or 'a thing'} for {draw.choice(['people', 'servers'])} {draw.randrange(10**6)}"
        lines.append(json.dumps({"text": text, "labels": labels, "group": f"g{number // 2}"}))
    return "\n".join(lines)


def messages(rows: int) -> str:
    """Lines as the recipe's comment describes them."""
    draw = random.Random(1)
    lines = []
    for _ in range(rows):
        turns = [{"role": "system", "content": "You help customers of a shop for bicycles."}]
        for _ in range(draw.randint(1, 3)):
            asked = " ".join("".join(draw.choices("aeilnorst", k=5)) for _ in range(4))  # no two nearly the same
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": "Yes, while you wait."}]
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines)


def summaries(rows: int) -> str:
    """Lines as the recipe's comment describes them."""
    draw = random.Random(1)
    texts = [" ".join("".join(draw.choices("aeilnorst", k=5)) for _ in range(6)) for _ in range(rows)]
    lines = [{"text": text, "summary": text[:12], "group": f"g{number // 2}"} for number, text in enumerate(texts)]
    return "\n".join(map(json.dumps, lines))


@pytest.mark.parametrize("recipe", ["stsb", "ratings", "questions", "tags", "support", "summaries"])
def test_a_recipe_runs_through_all_stages_on_a_slice(recipe: str, pipeline: Project) -> None:
    pipeline.inbox("tags.jsonl", tags(300))
    pipeline.inbox("messages.jsonl", messages(300))
    pipeline.inbox("summaries.jsonl", summaries(300))
    chats = recipe in ("support", "summaries")
    pipeline.use(recipe)

    def slice_of(params: Any) -> None:
        params["ingest"]["limit"] = 300
        params["ingest"]["base_model"] = {"scratch": TINY | ({"max_position_embeddings": 192} if chats else {})}
        for section, keys in (QUICK_CHAT if chats else QUICK).items():
            params[section].update(keys)
        if recipe == "questions":
            params["ingest"]["labels"] = COMMON

    pipeline.change(slice_of)
    pipeline.all_stages()
    pipeline.run("python", "-m", "flows.summary")
    report = json.loads((pipeline.root / "data/raw/manifest.json").read_text(encoding="utf-8"))
    assert report["rows_read"] == {"stsb": 8628, "ratings": 3709, "questions": 15452}.get(recipe, 300)
    assert report["rows_kept"] == 300 == report["rows_read"] - report["rows_rejected"]
    unmatched = sum(count for why, count in report["rejected_because"].items() if why.startswith("pattern"))
    assert unmatched == (recipe == "ratings"), "its first line names the columns"
    predictions = pl.read_parquet(pipeline.root / "data/predictions.parquet")
    if recipe == "stsb":
        raw = pl.read_parquet(pipeline.root / "data/raw/records.parquet")
        assert set(raw["split"]) == {"train", "validation", "test"} and raw["text_pair"].null_count() == 0
    assert predictions.height > 10
    scores = json.loads((pipeline.root / "reports/scores.json").read_text(encoding="utf-8"))
    measured = {**scores["baselines"], **scores.get("answer_baselines", {})}
    assert set(measured) == set(load_params(pipeline.root / "params.yaml").baselines)
    assert ("retention" in scores) == (recipe == "summaries") and ("rouge_l" in scores) == chats
    assert (pipeline.root / "reports/model_card.md").exists()
