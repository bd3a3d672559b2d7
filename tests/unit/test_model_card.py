"""The model card: a page that no label, licence or path can break."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stages.common.params import Params, check_params
from stages.register.card import model_card
from stages.register.gates import Verdict

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
    plain = {
        "ingest": {
            "sources": [{"path": "data/inbox/a.csv", "columns": {"text": "text", "label": "label"}}],
            "base_model": {"scratch": {}},
        },
        "register": {"model_name": "reviews"},
    }
    return check_params({**plain, **sections})


def interval(value: float) -> dict[str, float]:
    return {
        f"{name}{bound}": value + shift
        for name in ("accuracy", "macro_f1")
        for bound, shift in (("", 0.0), ("_low", -0.05), ("_high", 0.05))
    }


def card(
    folder: Path,
    labels: list[str],
    licence: str | None = "Apache 2.0",
    made: dict[str, int] | None = None,
    **given_params: Any,
) -> str:
    one = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 40}
    metrics = {
        "rows": 80,
        **interval(0.9),
        "per_class": dict.fromkeys(labels, one),
        "baselines": {"majority": interval(0.3)},
    }
    splits = {
        name: {"rows": 80, "groups": 4, "labels": dict.fromkeys(labels, 40)} for name in ("train", "validation", "test")
    }
    source = {"origin": "data/inbox/a.csv", "licence": licence, "sha256": "0" * 64}
    raw, clean = folder / "manifest.json", folder / "clean.json"
    raw.write_text(json.dumps({"rows_read": 300, "sources": [source]}), encoding="utf-8")
    clean.write_text(json.dumps({"rows_kept": 240, "splits": splits}), encoding="utf-8")
    verdicts = [
        Verdict("minimum accuracy", 0.9, 0.8, True, "accuracy 0.9000 is at least 0.8000"),
        Verdict("champion", 0.9, 0.95, False, "macro_f1 0.9000 is under 0.9500"),
    ]
    return model_card(params(**given_params), metrics, verdicts, raw, clean, made or {})


def shown(text: str) -> list[Any]:
    """What a reader of the page sees: the tokens of GitHub's Markdown."""
    return MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)


def plain(token: Any) -> str:
    return "".join(" " if part.type == "softbreak" else part.content for part in token.children)


def tables(text: str) -> list[list[list[str]]]:
    found: list[list[list[str]]] = []
    tokens = shown(text)
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
    kinds = {part.type for token in shown(text) for part in token.children or []}
    assert not kinds & {"html_inline", "link_open", "em_open", "image"}
    assert not any(token.type == "html_block" for token in shown(text))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12))
def test_any_label_stands_in_its_cell_as_it_is(tmp_path: Path, label: str) -> None:
    if not label.strip():
        label += "x"
    splits, _, classes = tables(card(tmp_path, [label, "other"]))
    assert one_line(splits[0][2]) == one_line(label) == one_line(classes[1][0])


def test_licence_and_gates_are_stated(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"])
    assert "licence: Apache 2.0" in text
    assert "- passed  minimum accuracy: accuracy 0.9000 is at least 0.8000" in text
    assert "- FAILED  champion: macro_f1 0.9000 is under 0.9500" in text
    assert "240 of 300 rows read reached a split" in text


def test_a_missing_licence_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "licence: not stated" in card(tmp_path, ["bad", "good"], licence=None)


def test_a_whole_licence_text_stays_in_its_line(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"], licence="MIT\n\n# Copyright\n<b>me</b>")
    headings = [plain(shown(text)[at + 1]) for at, token in enumerate(shown(text)) if token.type == "heading_open"]
    assert "Copyright" not in headings
    assert not any("html" in part.type for token in shown(text) for part in token.children or [])


@pytest.mark.parametrize(("confidence", "said"), [(0.95, "95%"), (0.999, "99.9%"), (0.975, "97.5%"), (0.57, "57%")])
def test_the_confidence_of_the_intervals_is_not_rounded_away(tmp_path: Path, confidence: float, said: str) -> None:
    evaluate = {"bootstrap": {"confidence": confidence}}
    assert f"In brackets: {said} bootstrap interval" in card(tmp_path, ["bad", "good"], evaluate=evaluate)


def test_every_knob_of_the_training_is_listed(tmp_path: Path) -> None:
    text = card(tmp_path, ["bad", "good"], finetune={"learning_rate": 0.00123})
    assert "- `learning_rate`: 0.00123" in text
    assert all(f"- `{name}`: " in text for name in params().finetune.model_fields)


def test_the_hub_can_read_the_metadata(tmp_path: Path) -> None:
    data = ModelCard(card(tmp_path, ["bad", "good"])).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"


def test_rows_that_augmentation_made_are_told(tmp_path: Path) -> None:
    assert "Train grew" not in card(tmp_path, ["bad", "good"])
    told = card(tmp_path, ["bad", "good"], made={"random_swap": 40, "synonyms": 2})
    assert "Train grew by 42 rows that augmentation made: 40 by random swap, 2 by synonyms." in told


@pytest.mark.parametrize(
    ("finetune", "told"),
    [
        ({}, "(full)"),
        ({"strategy": "partial", "partial": {"layers": 3}}, "(partial, layers 3)"),
        ({"strategy": "ia3"}, "(ia3, merged into the weights)"),
        ({"strategy": "ia3", "merge_adapter": False}, "(ia3, kept beside the weights)"),
        ({"strategy": "prefix"}, "(prefix, num_virtual_tokens 20, prefix_projection False, kept beside the weights)"),
    ],
)
def test_what_was_trained_is_told_and_where_it_went(tmp_path: Path, finetune: dict[str, Any], told: str) -> None:
    assert f"Fine-tuned {told} from " in card(tmp_path, ["a", "b"], finetune=finetune).replace("\\_", "_")
