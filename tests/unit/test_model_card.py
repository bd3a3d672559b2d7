"""The model card: a page that no label, licence or path can break."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from stages.common.params import Params
from stages.register.card import model_card
from stages.register.gates import Verdict
from tests.projects import params_of
from tests.unit.small_records import interval

NASTY = [
    "a|b",
    "a\\|b",
    "`code`",
    "<script>alert(1)</script>",
    "two\nlines",
    "*bold*",
    "[x](http://y)",
    "&amp;",
    "end\\",
]


def params(**sections: Any) -> Params:
    return params_of(**{"register": {"model_name": "reviews"}, **sections})


def card(
    folder: Path,
    labels: list[str],
    licence: str | None = "Apache 2.0",
    made: dict[str, int] | None = None,
    more: dict[str, Any] | None = None,
    export: dict[str, Any] | None = None,
    slices: list[tuple[str, int, float, float]] | None = None,
    verdicts: list[Verdict] | None = None,
    **given_params: Any,
) -> str:
    one = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 40}
    metrics = {
        "rows": 80,
        **interval(0.9),
        "per_class": dict.fromkeys(labels, one),
        "baselines": {"majority": interval(0.3)},
        **(more or {}),
    }
    splits = {
        name: {"rows": 80, "groups": 4, "labels": dict.fromkeys(labels, 40)} for name in ("train", "validation", "test")
    }
    source = {"origin": "data/inbox/a.csv", "licence": licence, "sha256": "0" * 64}
    raw, clean = folder / "manifest.json", folder / "clean.json"
    raw.write_text(json.dumps({"rows_read": 300, "sources": [source]}), encoding="utf-8")
    clean.write_text(json.dumps({"rows_kept": 240, "splits": splits}), encoding="utf-8")
    verdicts = verdicts or [
        Verdict("minimum accuracy", 0.9, 0.8, True, "accuracy 0.9000 is at least 0.8000"),
        Verdict("minimum macro_f1", 0.9, 0.95, False, "macro_f1 0.9000 is under 0.9500"),
    ]
    schema = {"slice": pl.String, "rows": pl.Int64, "accuracy": pl.Float64, "macro_f1": pl.Float64}
    parts = pl.DataFrame(slices or [], schema=schema, orient="row")
    return model_card(params(**given_params), metrics, verdicts, raw, clean, made or {}, export or {}, parts)


def display(text: str) -> list[Any]:
    """What a reader of the page sees: the tokens of GitHub's Markdown."""
    return MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)


def plain(token: Any) -> str:
    return "".join(" " if part.type == "softbreak" else part.content for part in token.children)


def tables(text: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = []
    tokens = display(text)
    for at, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            found[-1][-1].append(plain(tokens[at + 1]))
    return found


def one_line(label: str) -> str:
    return " ".join(label.split())


def test_the_card_has_splits_scores_and_classes_as_tables(tmp_path: Path) -> None:
    splits, scores, classes = tables(card(tmp_path, ["bad", "good"]))
    assert splits[0] == ["split", "rows", "bad", "good"]
    assert splits[1:] == [[name, "80", "40", "40"] for name in ("train", "validation", "test")]
    assert scores[1] == ["this model", "0.9000 [0.8500, 0.9500]", "0.9000 [0.8500, 0.9500]"]
    assert [row[0] for row in scores[1:]] == ["this model", "majority"]
    assert classes[1:] == [[name, "0.9000", "0.8000", "0.8500", "40"] for name in ("bad", "good")]


@pytest.mark.parametrize("label", NASTY)
def test_no_label_can_break_a_table_or_start_markup(tmp_path: Path, label: str) -> None:
    text = card(tmp_path, [label, "other"])
    splits, _, classes = tables(text)
    assert splits[0] == ["split", "rows", one_line(label), "other"]
    assert [row[0] for row in classes[1:]] == [one_line(label), "other"]
    assert {len(row) for row in splits} == {4}
    kinds = {part.type for token in display(text) for part in token.children or []}
    assert not kinds & {"html_inline", "link_open", "em_open", "image"}
    assert not any(token.type == "html_block" for token in display(text))


def test_licence_and_gates_are_stated(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"])
    assert "licence: Apache 2.0" in text
    assert "- passed minimum accuracy: accuracy 0.9000 is at least 0.8000" in text
    assert "- FAILED minimum macro\\_f1: macro\\_f1 0.9000 is under 0.9500" in text
    assert "240 of 300 rows read reached a split" in text
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")


def test_a_missing_licence_is_said_to_be_missing_and_a_whole_text_stays_in_its_line(tmp_path: Path) -> None:
    assert "licence: not stated" in card(tmp_path, ["bad", "good"], licence=None)
    text = card(tmp_path, ["bad", "good"], licence="MIT\n\n# Copyright\n<b>me</b>")
    headings = [plain(display(text)[at + 1]) for at, token in enumerate(display(text)) if token.type == "heading_open"]
    assert "Copyright" not in headings
    assert not any("html" in part.type for token in display(text) for part in token.children or [])


def test_every_knob_of_the_training_is_listed(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"], finetune={"learning_rate": 0.00123})
    assert "- `learning_rate`: 0.00123" in text
    assert all(f"- `{name}`: " in text for name in params().finetune.model_fields)


def test_rows_that_augmentation_made_are_told(tmp_path: Path) -> None:
    assert "Train grew" not in card(tmp_path, ["bad", "good"])
    told = card(tmp_path, ["bad", "good"], made={"random_swap": 40, "synonyms": 2})
    assert "Train grew by 42 rows that augmentation made: 40 by random swap, 2 by synonyms." in told


@pytest.mark.parametrize(
    ("finetune", "told"),
    [
        ({}, "(full)"),
        ({"strategy": "ia3"}, "(ia3, merged into the weights)"),
        ({"strategy": "ia3", "merge_adapter": False}, "(ia3, kept beside the weights)"),
        ({"strategy": "prefix"}, "(prefix, num_virtual_tokens 20, prefix_projection False, kept beside the weights)"),
    ],
)
def test_what_was_trained_is_told_and_where_it_went(tmp_path: Path, finetune: dict[str, Any], told: str) -> None:
    assert f"Fine-tuned {told} from " in card(tmp_path, ["a", "b"], finetune=finetune).replace("\\_", "_")


CALIBRATION = {"temperature": 1.25, "ece": 0.0213, "ece_before": 0.0741, "brier": 0.25}
BOUNDS = {"": 0.1, "_low": -0.01, "_high": 0.2}


def test_what_was_measured_stands_in_tables(tmp_path: Path) -> None:
    gain = {f"{name}_gain{end}": at for name in ("accuracy", "macro_f1") for end, at in BOUNDS.items()}
    sure = {"threshold": 0.73, "precision": 0.91, "recall": 0.6, "coverage": 0.66}
    never = {"threshold": None, "precision": None, "recall": 0.0, "coverage": 0.0}
    onnx = {"offered": True, "reason": "", "bytes": 2**20, "accuracy": 0.9, "accuracy_change": 0.0, "agreement": 1.0}
    more = {
        "baselines": {"tfidf": interval(0.3) | gain | {"fixed": 60, "broken": 12, "mcnemar_p": 1.2e-9}},
        "calibration": CALIBRATION,
        "thresholds": {"coverage": 0.625, "accuracy": 0.91, "labels": {"b|ad": sure, "good": never}},
        "behaviour": {
            "typos": {"kind": "invariance", "cases": 300, "passed": 270, "pass_rate": 0.9},
            "na<b>mes|": {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None},
        },
    }
    export = {"onnx": onnx, "int8": {"offered": False, "reason": "its accuracy | falls"}}
    text = card(tmp_path, ["b|ad", "good"], more=more, export=export)
    gains, thresholds, behaviour, forms = tables(text)[3:]
    assert gains[1] == ["tfidf", *["+0.1000 [-0.0100, +0.2000]"] * 2, "60", "12", "1.2e-09"]
    assert thresholds[1:] == [
        ["b|ad", "0.7300", "91.0%", "60.0%", "66.0%"],
        ["good", "never answered", "–", "0.0%", "0.0%"],
    ]
    assert behaviour[1:] == [["typos", "invariance", "300", "90.0%"], ["na<b>mes|", "invariance", "0", "–"]]
    assert forms[1:] == [
        ["ONNX", "yes", "1.0 MiB", "0.9000", "+0.0000", "100.0%"],
        ["ONNX, 8 bits", "no: its accuracy | falls", "–", "–", "–", "–"],
    ]
    said = " ".join(text.split())
    assert "Calibrated: logits are divided by 1.25, fitted on validation" in said and "0.0741" in said
    assert "answers 62.5% of the test rows; 91.0% of these answers are right" in said


def test_what_was_not_measured_is_left_out_or_said(tmp_path: Path) -> None:
    evaluate = {"calibration": {"temperature": False}}
    for more in ({"calibration": CALIBRATION | {"temperature": 1.0}}, {}):
        text = card(tmp_path, ["bad", "good"], more=more, evaluate=evaluate)
        assert "- The probabilities are not calibrated: read them as a ranking, not as chances." in text
        assert "Calibrated: " not in text and len(tables(text)) == 3
        assert ("it answers every text" in text) is bool(more)


@pytest.mark.parametrize("name", ["a|<b>b\\", "\u202eturned", "x" * 1000])
def test_the_weakest_slices_are_listed_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    rows = [("a", 30, 0.9, 0.9), (name, 20, 0.5, 0.4), ("b", 30, 0.8, 0.8), ("c", 30, 0.7, 0.7)]
    text = card(tmp_path, ["bad", "good"], slices=rows)
    worst = tables(text)[3]
    assert worst[0][0] == "weakest of 4 slices"
    assert [row[1:] for row in worst[1:]] == [
        ["20", "0.5000", "0.4000"],
        ["30", "0.7000", "0.7000"],
        ["30", "0.8000", "0.8000"],
    ]
    assert len(worst[1][0]) <= 80
    assert "\u202e" not in text
    assert not any("html" in part.type for token in display(text) for part in token.children or [])


def test_no_reason_of_a_gate_can_break_the_page(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"])
    verdicts = [Verdict("slices accuracy", 0.1, 0.5, False, f"the worst, {reason}, is under") for reason in NASTY]
    changed = card(tmp_path, ["bad", "good"], verdicts=verdicts)
    kinds = [part.type for token in display(changed) for part in token.children or []]
    assert not {"html_inline", "link_open", "em_open", "image"} & set(kinds)
    assert len(tables(changed)) == len(tables(text))
