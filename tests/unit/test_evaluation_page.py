"""The evaluation page shows what was measured, and does nothing that the data want."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.pages.charts import Axis, wilson
from stages.evaluate.page import LIMIT, render
from stages.tasks import load_task
from stages.tasks.attribution import Attribution
from tests.projects import PARAMS, params_of
from tests.unit.seen_page import HOSTILE, Seen, assert_shown_and_idle
from tests.unit.small_records import interval, make_records


def page_of(hostile: str = "harmless", rows: int = 40, labels: int = 2, **evaluate: Any) -> dict[str, Any]:
    """What `render` takes for a page where this text is everywhere that data can put one."""
    names = [f"{hostile} {number}" for number in range(labels)]
    params = params_of(
        ingest=PARAMS["ingest"] | {"base_model": {"path": "data/inbox/base"}},
        evaluate={"thresholds": {"metric": "precision", "target": 0.9}, **evaluate},
        register={"model_name": "films"},
    )
    records = make_records(
        [{"id": f"{row:04}", "text": f"{hostile} film {row}", "label": names[row % labels]} for row in range(rows)]
    )
    actual = np.arange(rows) % labels
    predicted = np.where(np.arange(rows) % 5 == 0, (actual + 1) % labels, actual)
    confidence = 0.6 + 0.39 * (np.arange(rows) / rows)
    answered = records.with_columns(
        prediction=pl.Series([names[number] for number in predicted]),
        confidence=confidence,
        abstained=confidence < 0.7,
        label_quality=np.where(predicted == actual, confidence, 1 - confidence),
        probabilities=pl.Series([[1 / labels] * labels] * rows),
    )
    ours = interval(0.8, 0.0)
    gain = {"macro_f1_gain": 0.1234, "macro_f1_gain_low": 0.1, "macro_f1_gain_high": 0.15, "mcnemar_p": 1.2e-9}
    scores = {
        "rows": rows,
        **ours,
        "per_class": {name: {"precision": 0.75, "recall": 0.5, "f1": 0.6, "support": 20} for name in names},
        "baselines": {"majority": {**ours, "accuracy": 0.7, "accuracy_low": 0.65, **gain}},
        "calibration": {
            **{"temperature": 1.25, "ece": 0.0213, "ece_before": 0.0456, "brier": 0.2},
            **{"log_loss": 0.39, "log_loss_before": 0.41, "bins": 15},
        },
        "thresholds": {
            "labels": {
                names[0]: {"threshold": 0.8, "precision": 0.9, "recall": None, "problem": None},
                names[1]: {"threshold": None, "precision": None, "recall": None, "problem": "only 3 rows"},
            },
            "coverage": 0.75,
            "right": None,
        },
        "behaviour": {
            "typos": {"kind": "invariance", "cases": 10, "passed": 7, "pass_rate": 0.7},
            "names": {"kind": "invariance", "cases": 0, "passed": 0, "pass_rate": None},
        },
        "model": {"parameters": 22_713_986, "bytes": 90_867_952},
    }
    behaviour = pl.DataFrame(
        {
            **{"test": "typos", "kind": "invariance", "text": f"{hostile} flim", "before": f"{hostile} film"},
            **{"expected": names[0], "prediction": names[1], "score": 0.4, "score_before": 0.9},
            "passed": [False] * 3 + [True] * 7,
        }
    )
    curve = {"label": [names[1]] * 3}
    reliability = {"label": ["as trained", "calibrated"], "confidence": [0.8, 0.8], "share": [0.7, 0.79]}
    tables = {
        "roc": {**curve, "fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.9, 1.0]},
        "precision_recall": {**curve, "recall": [0.0, 0.5, 1.0], "precision": [1.0, 0.9, 0.5]},
        "reliability": {**reliability, "rows": [40, 40]},
        "slices": {"slice": [f"source: {hostile}"], "rows": [40], "macro_f1": [0.79], "accuracy": [0.8]},
        "confusion": {"actual": records["label"], "predicted": answered["prediction"]},
    }
    attributions = [
        Attribution(
            **{"id": "0001", "kind": kind, "label": names[0], "prediction": names[1], "confidence": 0.9},
            **{"pieces": [(f"{hostile} ", 0.8), ("film", -0.3)], "truncated": False, "delta": 0.01},
        )
        for kind in ("error", "sample")
    ]
    refused = dict.fromkeys(("bytes", "score", "score_change", "agreement", "faster"))
    return {
        "params": params,
        "scores": scores,
        "reports": {
            "export": {
                "onnx": {**refused, "offered": True, "reason": "answers alike", "bytes": 2**20, "score": 0.8},
                "int8": {**refused, "offered": False, "reason": f"because of {hostile}"},
            },
            "tokenize": {},
        },
        "rows": answered,
        "right": pl.Series(predicted == actual),
        "behaviour": behaviour,
        "attributions": attributions,
        "tables": {name: pl.DataFrame(columns) for name, columns in tables.items()},
    }


def chat_page(hostile: str) -> dict[str, Any]:
    """The same of a language model."""
    page = page_of(hostile)
    sources = [{"path": "data/inbox/a.jsonl", "format": "messages"}]
    params = params_of(
        task="causal-lm",
        ingest={"sources": sources, "base_model": {"path": "data/inbox/base"}},
        evaluate={},
        register={"model_name": "chat"},
    )
    ours = {f"{score.name}{end}": 0.5 for score in params.spec.scores for end in ("", "_low", "_high")}
    gains = {f"nll_gain{end}": 0.1 for end in ("", "_low", "_high")} | {"mcnemar_p": 0.5}
    said = {
        "id": "a",
        "asked": f"{hostile}?",
        "reference": hostile,
        "this model": f"{hostile}!",
        "base_model": "",
    }
    pieces = [{"id": "b", "pieces": [[f"{hostile} asks", False], [f"{hostile} answers", True]]}]
    split = {"rows": 9, "tokens": 90, "share_learnt": 0.25, "rows_without_oldest_turns": 2, "rows_rejected": 1}
    split |= {"rejected_because": {f"too long {hostile}": 1}, "pieces": pieces}
    scores = {
        **{"rows": 40, "model": page["scores"]["model"], "behaviour": {}, **ours},
        "retention": {"texts": 7, "base_bits": 1.2, "bits": 1.25, "loss": 0.05, "loss_low": 0.04, "loss_high": 0.06},
        **{"baselines": {"base_model": ours | gains}, "answer_baselines": {"nearest_answer": {"rouge_l": 0.1}}},
    }
    slices = pl.DataFrame({"slice": ["1 answer"], "rows": [9], "nll": [0.5], "bits_per_byte": [0.5]})
    return page | {
        **{"params": params, "scores": scores, "attributions": [], "behaviour": page["behaviour"].clear()},
        "reports": {
            "export": page["reports"]["export"] | {"merge_gap": 2e-6},
            "tokenize": dict.fromkeys(("train", "validation", "test"), split),
        },
        "tables": {"conversations": pl.DataFrame([said]), "slices": slices},
    }


KNOWN = Seen(render(**page_of()))


def test_the_page_shows_scores_intervals_gains_and_verdicts() -> None:
    for text in (
        "0.8000 accuracy, 0.800 to 0.800",
        "0.021 calibration error, 0.046 as trained",
        "7 of 10 behavioural cases passed",
        "majority 0.8000 0.7000 +0.1234 [+0.100, +0.150] < 0.0001",
        "divided by 1.250",
        "75.0 % are answered",
        "Never answered: only 3 rows.",
        "typos Letters swapped, dropped or doubled must not change the prediction. 7 of 10, 70.0 %",
        "names One given name for another must not change the prediction. no row to try it on",
        "harmless film harmless flim harmless 0 harmless 1 0.900 → 0.400",
        "22,713,986 weights in 86.7 MiB",
        "ONNX yes 1.0 0.8000 – – answers alike",
        "ONNX, 8 bits no – – – – because of harmless",
    ):
        assert text in KNOWN.text, text


def test_the_page_of_answers_shows_what_was_said_learnt_rejected_and_lost() -> None:
    seen = Seen(render(**chat_page("harmless")))
    for text in (
        "+0.0500 bits per byte on general texts, +0.040 to +0.060",
        "1.2000 by the base model, 1.2500 by this one: +0.0500 [+0.0400, +0.0600]",
        "train: 9 conversations of 90 tokens, 25.0 % of them learnt, 2 without their oldest turns, 1 rejected",
        "differs by 2.0e-06 at most",
        "harmless!",
        "harmless asks harmless answers",
        "too long harmless",
    ):
        assert text in seen.text, text
    assert "behavioural cases" not in seen.text
    for hostile in HOSTILE:
        assert_shown_and_idle(render(**chat_page(hostile)), hostile, seen, times=5)


@pytest.mark.parametrize("label", ["[]", '["b"]'])
def test_the_page_of_sets_says_what_was_answered_together_for_the_first_time(label: str) -> None:
    """Also where no row has any label: then there is no average precision."""
    page, task = page_of(), load_task("multi-label")
    params = params_of(task=task.name, ingest=page["params"].ingest.model_dump(exclude_unset=True))
    rows = page["rows"].with_columns(label=pl.lit(label), prediction=pl.lit('["a","b"]'))
    train, decision = pl.DataFrame({"label": ['["a"]', '["b"]']}), task.Decision(task=task.name, labels=["a", "b"])
    entries, tables = task.report(params, train, rows, np.tile([0.9, 0.8], (rows.height, 1)), decision, None)
    ours = {f"{score.name}{end}": 0.5 for score in params.spec.headline for end in ("", "_low", "_high")}
    slices = pl.DataFrame({"slice": ["labels: 1"], "rows": [40], "micro_f1": [0.5], "macro_f1": [0.5]})
    changes = {"params": params, "rows": rows, "tables": {**tables, "slices": slices}}
    text = Seen(render(**page | changes | {"scores": page["scores"] | entries | ours | {"baselines": {}}})).text
    assert "though no training row has both: 1." in text and "a b 40" in text


def test_the_page_loads_and_runs_nothing() -> None:
    page = render(**page_of())
    assert not KNOWN.tags & {"script", "link", "img", "iframe", "object", "form", "base", "a", "video"}
    assert not KNOWN.attributes & {"src", "href", "srcset", "action", "onclick", "onload", "http"}
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "://" not in page


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    assert_shown_and_idle(render(**page_of(hostile)), hostile, KNOWN, times=10)


@pytest.mark.parametrize(
    "page",
    [page_of("x" * 100_000), page_of("'" * 400, rows=400, examples=200), page_of("😀" * 300, rows=500, labels=100)],
    ids=["huge texts", "quotes", "a hundred labels"],
)
def test_the_page_stays_small_whatever_the_data(page: dict[str, Any]) -> None:
    assert len(render(**page).encode()) <= LIMIT


def test_no_examples_means_no_texts_at_all() -> None:
    text = Seen(render(**page_of("label", examples=0))).text
    assert "film" not in text
    assert "7 of 10" in text


def test_what_is_private_is_masked_and_half_an_address_does_not_stay() -> None:
    page = page_of("me@example.org")
    split = Attribution(
        **{"id": "0001", "kind": "error", "label": "a", "prediction": "b", "confidence": 0.9},
        **{"pieces": [("me@", 0.8), ("example.org", -0.3), (" wrote", 0.1)], "truncated": False, "delta": 0.0},
    )
    page["attributions"] = [split]
    assert "example.org" not in render(**page)
    assert "[EMAIL] wrote" in Seen(render(**page)).text
    assert "me@example.org" in render(**page | {"params": page_of(mask_pii=False)["params"]})


def test_the_page_is_the_same_in_any_order_of_the_rows() -> None:
    page = page_of()
    shuffled = {
        name: page[name].sample(fraction=1.0, shuffle=True, seed=seed)
        for name, seed in (("rows", 0), ("right", 0), ("behaviour", 2))
    }
    assert render(**page | shuffled) == render(**page)


def test_an_interval_of_a_share_is_sound_at_its_ends() -> None:
    assert wilson(1.0, 10) == pytest.approx((0.722, 1.0), abs=1e-3)
    assert wilson(0.5, 100) == pytest.approx((0.404, 0.596), abs=1e-3)


def test_an_axis_begins_and_ends_at_round_numbers_around_all_values() -> None:
    axis = Axis.around([0.632, 0.871])
    assert axis.marks(4) == ["0.60", "0.70", "0.80", "0.90"]
    assert Axis.around([0.0021, 0.0038], 0.0002).marks(3) == ["0.0020", "0.0029", "0.0038"]
    assert (axis.place(0.75), Axis.around([1.0, 1.0]).place(1.0)) == (pytest.approx(0.5), 1.0)
