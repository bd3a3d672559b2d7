"""The model card: a page that no label, licence or path can break."""

from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from stages.common.display import visible
from stages.common.params import FinetuneParams
from stages.register.card import model_card
from stages.register.gates import Verdict
from tests.projects import params_of
from tests.unit.small_records import interval

NASTY = [
    *("a|b", "a\\|b", "`code`", "<script>alert(1)</script>", "two\nlines", "*bold*", "[x](http://y)", "&amp;", "end\\"),
    *("\u202eturned", "x" * 1000),
]
CALIBRATION = {"temperature": 1.25, "ece": 0.0213, "ece_before": 0.0741, "brier": 0.25}
BOUNDS = {"": 0.1, "_low": -0.01, "_high": 0.2}
GAIN = {f"{name}_gain{end}": bound for name in ("accuracy", "macro_f1") for end, bound in BOUNDS.items()}
NUMBERS = ("bytes", "score", "score_change", "agreement")
NOT_OFFERED = {"offered": False, "reason": "its accuracy | falls", **dict.fromkeys(NUMBERS)}


def card(
    labels: list[str],
    licence: str | None = "Apache 2.0",
    augmented: dict[str, int] | None = None,
    more: dict[str, Any] | None = None,
    export: dict[str, Any] | None = None,
    slices: list[tuple[str, int, float, float]] | None = None,
    verdicts: list[Verdict] | None = None,
    **sections: Any,
) -> str:
    scores = {
        "rows": 80,
        **interval(0.9),
        "per_class": {label: {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 40} for label in labels},
        "baselines": {"majority": interval(0.3) | GAIN | {"fixed": 60, "broken": 12, "mcnemar_p": 1.2e-9}},
        "calibration": CALIBRATION,
        "thresholds": None,
        "behaviour": {},
    }
    split = {"rows": 80, "groups": 4, "labels": dict.fromkeys(labels, 40)}
    splits = dict.fromkeys(("train", "validation", "test"), split)
    source = {"origin": "data/inbox/a.csv", "licence": licence, "sha256": "0" * 64}
    manifest, cleaned = {"rows_read": 300, "sources": [source]}, {"rows_kept": 240, "splits": splits}
    verdicts = verdicts or [
        Verdict("minimum accuracy", 0.9, 0.8, True, "accuracy 0.9000 is at least 0.8000"),
        Verdict("minimum macro_f1", 0.9, 0.95, False, "macro_f1 0.9000 is under 0.9500"),
    ]
    schema = {"slice": pl.String, "rows": pl.Int64, "macro_f1": pl.Float64, "accuracy": pl.Float64}
    parts = pl.DataFrame(slices or [], schema=schema, orient="row")
    params = params_of(**{"register": {"model_name": "reviews"}, **sections})
    export = dict.fromkeys(("onnx", "int8", "bf16"), NOT_OFFERED) | (export or {})
    return model_card(params, scores | (more or {}), verdicts, manifest, cleaned, augmented or {}, export, parts)


def display(text: str) -> list[Any]:
    """What a reader of the page sees: the tokens of GitHub's Markdown."""
    return MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)


def plain(token: Any) -> str:
    return "".join(" " if part.type == "softbreak" else part.content for part in token.children)


def tables(text: str) -> list[list[list[str]]]:
    result: list[list[list[str]]] = []
    tokens = display(text)
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            result.append([])
        elif token.type == "tr_open":
            result[-1].append([])
        elif token.type in ("td_open", "th_open"):
            result[-1][-1].append(plain(tokens[index + 1]))
    return result


def test_the_card_has_splits_scores_and_classes_as_tables() -> None:
    splits, scores, _, classes, *_ = tables(card(["bad", "good"]))
    assert splits[1:] == [[name, "80", "40", "40"] for name in ("train", "validation", "test")]
    assert scores[1] == ["this model", "0.9000 [0.8500, 0.9500]", "0.9000 [0.8500, 0.9500]"]
    assert [row[0] for row in scores[1:]] == ["this model", "majority"]
    assert classes[1:] == [[name, "0.9000", "0.8000", "0.8500", "40"] for name in ("bad", "good")]


@pytest.mark.parametrize("name", NASTY)
def test_no_label_slice_or_reason_can_break_a_table_or_start_markup(name: str) -> None:
    slices = [("a", 30, 0.9, 0.9), (name, 20, 0.5, 0.4), ("b", 30, 0.8, 0.8), ("c", 30, 0.7, 0.7)]
    verdicts = [Verdict("slices accuracy", 0.1, 0.5, False, f"the worst, {name}, is under")]
    text = card([name, "other"], slices=slices, verdicts=verdicts)
    splits, _, _, worst, classes, _ = tables(text)
    cell = " ".join(visible(name).split())
    assert splits[0] == ["split", "rows", *([cell, "other"] if name < "other" else ["other", cell])]
    assert [row[0] for row in classes[1:]] == [cell, "other"]
    assert {len(row) for row in splits} == {4}
    assert worst[0][0] == "weakest of 4 slices" and len(worst[1][0]) <= 80
    assert [row[1:] for row in worst[1:]] == [
        ["20", "0.5000", "0.4000"],
        ["30", "0.7000", "0.7000"],
        ["30", "0.8000", "0.8000"],
    ]
    kinds = {part.type for token in display(text) for part in [token, *(token.children or [])]}
    assert not kinds & {"html_block", "html_inline", "link_open", "em_open", "image"}


def test_licence_gates_and_every_setting_of_the_training_are_stated() -> None:
    text = card(["bad", "good"], finetune={"learning_rate": 0.00123}, augmented={"random_swap": 40, "eda": 2})
    assert "Train grew by 42 rows that augmentation made: 40 by random swap, 2 by eda." in text
    assert "licence: Apache 2.0" in text
    assert "- passed minimum accuracy: accuracy 0.9000 is at least 0.8000" in text
    assert "- FAILED minimum macro\\_f1: macro\\_f1 0.9000 is under 0.9500" in text
    assert "240 of 300 rows read reached a split" in text
    assert "- `learning_rate`: 0.00123" in text
    assert all(f"- `{name}`: " in text for name in FinetuneParams.model_fields)
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")


def test_a_missing_licence_is_said_to_be_missing_and_a_whole_text_stays_in_its_line() -> None:
    assert "licence: not stated" in card(["bad", "good"], licence=None)
    tokens = display(card(["bad", "good"], licence="MIT\n\n# Copyright\n<b>me</b>"))
    assert "Copyright" not in [plain(after) for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert not any("html" in part.type for token in tokens for part in token.children or [])


@pytest.mark.parametrize(
    ("finetune", "strategy"),
    [
        ({}, "(full)"),
        ({"strategy": "ia3", "merge_adapter": False}, "(ia3, kept beside the weights)"),
        ({"strategy": "lora"}, "merged into the weights)"),
    ],
)
def test_strategy_and_place_of_an_adapter_are_stated(finetune: dict[str, Any], strategy: str) -> None:
    assert f"{strategy} from " in card(["a", "b"], finetune=finetune).replace("\\_", "_")


def test_what_was_measured_stands_in_tables() -> None:
    sure = {"threshold": 0.73, "precision": 0.91, "recall": 0.6, "coverage": 0.66}
    never = {"threshold": None, "precision": None, "recall": 0.0, "coverage": 0.0}
    onnx = {"offered": True, "reason": "", "bytes": 2**20, "score": 0.9, "score_change": 0.0, "agreement": 1.0}
    more = {
        "thresholds": {"coverage": 0.625, "right": 0.91, "labels": {"b|ad": sure, "good": never}},
        "behaviour": {
            "typos": {"kind": "invariance", "cases": 300, "passed": 270, "pass_rate": 0.9},
            "na<b>mes|": {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None},
        },
    }
    text = card(["b|ad", "good"], more=more, export={"onnx": onnx})
    gains, _, thresholds, behaviour, forms = tables(text)[2:]
    assert gains[1] == ["majority", *["+0.1000 [-0.0100, +0.2000]"] * 2, "60", "12", "1.2e-09"]
    assert thresholds[1:] == [
        ["b|ad", "0.7300", "91.0%", "60.0%", "66.0%"],
        ["good", "never answered", "–", "0.0%", "0.0%"],
    ]
    assert behaviour[1:] == [["typos", "invariance", "300", "90.0%"], ["na<b>mes|", "invariance", "0", "–"]]
    assert forms[1:] == [
        ["ONNX", "yes", "1.0 MiB", "0.9000", "+0.0000", "100.0%"],
        *([name, "no: its accuracy | falls", "–", "–", "–", "–"] for name in ("ONNX, 8 bits", "bfloat16")),
    ]
    assert "Calibrated: logits are divided by 1.25, fitted on validation" in text and "0.0741" in text
    assert "answers 62.5% of the test rows; 91.0% of these answers are right" in text


def test_what_is_not_calibrated_is_said_not_to_be() -> None:
    text = card(["bad", "good"], evaluate={"calibration": {"temperature": False}})
    assert "The probabilities are not calibrated: read them as a ranking, not as chances." in text
    assert "Calibrated: " not in text and "it answers every text" in text
