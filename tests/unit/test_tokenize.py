"""Token ids are exactly those of the plain Hugging Face tokenizer, and whatever is cut off is counted."""

import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from stages.common.schemas import SPLITS, AugmentedRecords, CleanRecords, TokenizedRecords
from tests.projects import Project
from tests.unit.small_records import FILM_WORDS, make_records

ODD = ["x", "漢字 mixed with words", "🎈 unknown", "[SEP] in a text [CLS]", "a" * 300, "one two, three!", "word " * 90]


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(FILM_WORDS, k=rng.randint(1, 60))) for _ in range(count)]


def put_rows(project: Project, pairs: bool) -> dict[str, pl.DataFrame]:
    """Write the three splits; of the pairs, some have no second text."""
    tables = {}
    for number, name in enumerate(SPLITS):
        texts = [*ODD, *sentences(30, seed=number)]
        seconds = [*sentences(30, seed=9), *ODD] if pairs else [None] * len(texts)
        rows = make_records(
            [
                {"id": f"{name}{index}", "text": text, "text_pair": None if index % 5 == 4 else second}
                for index, (text, second) in enumerate(zip(texts, seconds, strict=True))
            ]
        ).with_columns(fold=pl.lit(None, pl.Int16))
        folder, schema = ("augmented", AugmentedRecords) if name == "train" else ("clean", CleanRecords)
        own = {column: pl.lit(None, pl.String) for column in ("parent", "method")}
        schema.write(rows.with_columns(**own), project.root / f"data/{folder}/{name}.parquet")
        tables[name] = rows
    return tables


@pytest.mark.parametrize("pairs", [False, True], ids=["single texts", "pairs"])
def test_ids_are_those_of_the_plain_tokenizer_and_what_is_cut_off_is_counted(
    project: Project, base: Path, pairs: bool
) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(base, project.root / "models/base")
    if pairs:
        # RoBERTa keeps two of its 514 positions for itself: there the tokenizer alone knows how much the model takes.
        config = project.root / "models/base/tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 24}))
    records = put_rows(project, pairs)
    project.params(tokenize={"max_length": 60 if pairs else 24})
    project.run("python", "-m", "stages.tokenize")
    report = json.loads((project.root / "reports/tokenize.json").read_text())
    plain = AutoTokenizer.from_pretrained(base)
    for name, rows in records.items():
        table = TokenizedRecords.read(project.root / f"data/tokenized/{name}.parquet")
        for row, tokens in zip(rows.to_dicts(), table.to_dicts(), strict=True):
            texts = ([row["text"]], [row["text_pair"] or ""]) if pairs else ([row["text"]],)
            expected = plain(*texts, truncation=True, max_length=24, return_token_type_ids=True)
            kept, whole = expected["input_ids"][0], plain(*texts)["input_ids"][0]
            assert tokens == {
                "id": row["id"],
                "input_ids": kept,
                "token_type_ids": expected["token_type_ids"][0],
                "labels": ["negative", "positive"].index(row["label"]),
                "length": len(kept),
                "truncated": len(whole) - len(kept),
            }
        cut = table.filter(pl.col("truncated") > 0).height
        assert 0 < cut < table.height
        counts = {"rows": rows.height, "rows_truncated": cut, "tokens": table["input_ids"].list.len().sum()}
        assert counts.items() <= report[name].items()
    assert json.loads((project.root / "data/tokenized/encoding.json").read_text()) == {
        "max_length": 24,
        "labels": {"negative": 0, "positive": 1},
    }
