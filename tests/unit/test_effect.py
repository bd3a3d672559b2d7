"""What a change did: both models on the rows that both revisions have."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.reviewing.effect import effect_of
from flows.reviewing.findings import ChangedRow, Effect, Gain
from flows.reviewing.revision import Revision
from tests.projects import Project
from tests.unit.small_revisions import PARAMS, Row, put_rows, revision

LABELS = ["bad", "good", "odd"]
METRICS = {
    "model": {"bytes": 2**20},
    "log_loss": 0.4,
    "calibration": {"ece": 0.03, "brier": 0.2},
    "thresholds": {"coverage": 0.813427, "right": 0.9},
}
PLOTS = {
    "training": "step,name,value\n20,loss,0.7\n20,learning_rate,0.001\n40,loss,0.5\n40,learning_rate,0.0005\n",
    "validation": "epoch,name,value\n1.0,loss,0.4\n1.0,accuracy,0.8\n1.0,macro_f1,0.79\n",
    "reliability": "label,confidence,share\nas trained,0.9,0.5\ncalibrated,0.9,0.8\ncalibrated,0.6,0.5\n",
}

Rows = dict[str, Row]


def two(folder: Path, base: Rows, head: Rows, data: Any = PARAMS) -> tuple[Revision, Revision]:
    """Return two revisions with these rows."""
    for side, rows in ((Project(folder / "base"), base), (Project(folder / "head"), head)):
        put_rows(side.root, rows)
        side.file("reports/scores.json", METRICS)
        for plot, table in PLOTS.items():
            side.file(f"reports/plots/{plot}.csv", table)
    return revision(folder / "base", data=data), revision(folder / "head", "HEAD", data=data)


def effect(folder: Path, base: Rows, head: Rows, examples: int = 10, data: Any = PARAMS) -> Effect:
    result = effect_of(*two(folder, base, head, data), examples)
    assert result is not None
    return result


def by_name(gains: tuple[Gain, ...]) -> dict[str, Gain]:
    return {gain.name: gain for gain in gains}


@st.composite
def answers(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Rows of two revisions, some of them in both, with the same label there."""
    label, confidence = st.sampled_from(LABELS), st.sampled_from([0.5, 0.6, 0.7])
    ids = [f"r{index:02}" for index in range(draw(st.integers(1, 20)))]
    labels = {row: draw(label) for row in ids}
    stars = st.sampled_from(["1", "5", None])

    def side() -> Rows:
        chosen = [row for row in ids if draw(st.integers(0, 4))]
        texts = {row: "x" * (1 + int(row[1:])) for row in chosen}
        return {row: Row(labels[row], draw(label), draw(confidence), texts[row], draw(stars)) for row in chosen}

    return side(), side()


@given(answers())
@settings(max_examples=25)
def test_gains_add_up_over_the_rows_of_both_and_turn_round_with_them(rows: tuple[Rows, Rows]) -> None:
    with TemporaryDirectory() as folder:
        base, head = two(Path(folder), *rows)
        forth, back = effect_of(base, head, 99), effect_of(head, base, 99)
    assert forth and back
    old, new = rows
    shared = old.keys() & new.keys()
    assert forth.rows == len(shared) and all(gain.rows == forth.rows for gain in forth.scores)
    assert (forth.only_base, forth.only_head) == (len(old) - len(shared), len(new) - len(shared))
    moved = sum(old[row].predicted != new[row].predicted for row in shared)
    assert forth.improved.total + forth.regressed.total + forth.moved == moved
    assert (forth.improved.total, forth.regressed.total) == (back.regressed.total, back.improved.total)
    assert {row.id for row in forth.improved.examples} == {row.id for row in back.regressed.examples}
    cells = Counter((new[row].label, side[row].predicted) for row in shared for side in (new, old))
    assert all(base + head == cells[label, prediction] for label, prediction, base, head in forth.confusion)
    assert sum(head - base for *_, base, head in forth.confusion) == 0
    assert {(*pair, head, base) for *pair, base, head in forth.confusion} == {*back.confusion}
    opposite = {"better": "worse", "worse": "better", "same": "same", "unclear": "unclear"}
    for gain, other in zip((*forth.scores, *forth.parts), (*back.scores, *back.parts), strict=True):
        assert (gain.base, gain.head, opposite[gain.trend]) == (other.head, other.base, other.trend)
        assert (gain.gain, gain.low, gain.high) == pytest.approx((-other.gain, -other.high, -other.low), abs=2e-6)
        assert gain.head - gain.base == pytest.approx(gain.gain, abs=2e-6) and gain.low <= gain.high
    if shared:
        gain = by_name(forth.scores)["accuracy"]
        assert forth.improved.total - forth.regressed.total == pytest.approx(gain.gain * forth.rows, abs=1e-4)


def many(predicted: list[str]) -> Rows:
    """Sixty rows of three labels in turn, of which a model says what is given, each twenty times."""
    return {f"r{index:02}": Row(LABELS[index % 3], predicted[index % 3]) for index in range(60)}


def test_a_label_that_no_model_changed_its_mind_on_is_the_same_and_others_are_better(tmp_path: Path) -> None:
    result = effect(tmp_path, many(["bad", "odd", "odd"]), many(["bad", "good", "odd"]))
    assert {gain.name: gain.trend for gain in result.parts} == {"bad": "same", "good": "better", "odd": "better"}
    assert [gain.rows for gain in result.parts] == [20, 20, 20]
    assert by_name(result.scores)["accuracy"].trend == "better"
    assert by_name(result.scores)["accuracy"].gain == pytest.approx(1 / 3, abs=1e-6)
    assert result.mcnemar_p < 0.001
    assert result.confusion == (("good", "good", 0, 20), ("good", "odd", 20, 0))


def test_a_row_or_two_prove_nothing(tmp_path: Path) -> None:
    good = many(["bad", "good", "odd"])
    assert {gain.trend for gain in effect(tmp_path, {**good, "r00": Row("bad", "odd")}, good).scores} == {"unclear"}


def test_changed_rows_are_listed_with_all_that_a_reviewer_asks_by_confidence(tmp_path: Path) -> None:
    base = {f"r{index}": Row("good", "bad", 0.6) for index in range(4)} | {"s": Row("bad", "bad", 0.7, "sad")}
    answers = {"r0": ("good", 0.6), "r1": ("good", 0.9), "r2": ("good", 0.9), "r3": ("odd", 0.8), "s": ("good", 0.8)}
    head = {row: Row(base[row].label, *answer, base[row].text) for row, answer in answers.items()}
    result = effect(tmp_path, base, head, examples=2)
    assert (result.improved.total, result.moved, result.regressed.total) == (3, 1, 1)
    assert [row.id for row in result.improved.examples] == ["r1", "r2"]
    assert result.regressed.examples == (ChangedRow("s", "sad", "", "bad", "bad", 0.7, "good", 0.8),)


def test_both_models_are_scored_by_the_labels_of_the_head(tmp_path: Path) -> None:
    base = {"a": Row("bad", "good"), "b": Row("bad", "bad")}
    result = effect(tmp_path, base, {**base, "a": Row("good", "good")})
    assert result.relabelled == 1
    assert by_name(result.scores)["accuracy"].base == 1.0


def test_of_sets_every_label_that_the_model_knows_counts_and_each_slice_of_the_task_is_compared(tmp_path: Path) -> None:
    """The Hamming loss is that of reports/scores.json, also where no shared row has a label; such a label has no F1."""
    head = {f"r{index}": Row('["a","b"]', '["a"]') for index in range(4)}
    base, head_ = two(tmp_path, {name: replace(row, predicted="[]") for name, row in head.items()}, head)
    for side in (base, head_):
        scores = {**METRICS, "task": "multi-label", "per_class": {name: {"f1": 0.5} for name in "abcd"}}
        Project(side.folder).file("reports/scores.json", scores)
    result = effect_of(base, head_, 3)
    assert result
    loss = by_name(result.scores)["hamming_loss"]
    assert (loss.base, loss.head, loss.gain) == (0.5, 0.25, 0.25)
    assert [(gain.name, gain.rows) for gain in result.parts] == [("a", 4), ("b", 4)]
    assert [gain.name for gain in result.slices][1:] == ["labels: 2", "pair: a, b"]


def test_slices_are_those_of_the_head_as_far_as_their_rows_are_shared(tmp_path: Path) -> None:
    head = {f"r{index:02}": Row("bad", "bad", text="x" * (index + 1), stars=str(index % 3)) for index in range(12)}
    base = {row: replace(head[row], predicted="good" if head[row].stars == "1" else "bad") for row in [*head][1:]}
    bins = {"length_bins": 2, "columns": ["stars"], "min_rows": 4}
    data = {**PARAMS, "evaluate": {"bootstrap": {"resamples": 100}, "slices": bins}}
    result = effect(tmp_path, base, head, data=data)
    assert [(gain.name, gain.rows, gain.trend) for gain in result.slices] == [
        ("length 1: 1 to 6 characters", 5, "unclear"),  # as reports/plots/slices.csv of the head names it
        ("length 2: over 6 characters", 6, "unclear"),
        ("stars: 1", 4, "unclear"),
        ("stars: 2", 4, "same"),
    ]
    assert (result.slices[2].base, result.slices[2].head) == (0.0, 1.0)


def test_curves_and_figures_of_both_stand_side_by_side(tmp_path: Path) -> None:
    base, head = two(tmp_path, many(LABELS), many(LABELS))
    other = PLOTS["training"].replace("loss,0.5", "loss,0.3") + "40,grad_norm,1\n"
    Project(head.folder).file("reports/plots/training.csv", other)
    Project(head.folder).file("reports/scores.json", {**METRICS, "thresholds": None})
    result = effect_of(base, head, 3)
    assert result
    curves = {curve.y: curve for curve in result.curves}
    names = ["training loss", "training learning_rate", "training grad_norm"]
    names += [f"validation {name}" for name in ("loss", "accuracy", "macro_f1")]
    assert [*curves] == [*names, "reliability share"]
    loss, reliability = curves["training loss"], curves["reliability share"]
    assert (loss.x, loss.across, loss.up) == ("step", ["20", "40"], ["0.3", "0.7"])
    assert [line.points for line in loss.lines] == ["0.0,0.0 200.0,100.0", "0.0,0.0 200.0,200.0"]
    assert curves["validation loss"].lines[0].dots == [(0.0, 1.0)]
    assert (reliability.across, reliability.up) == (["0.6", "0.9"], ["0.5", "0.8"])
    figures = {name: values for name, *values in result.figures}
    assert figures["calibration error"] == [0.03, 0.03]
    assert figures["coverage at the thresholds"] == [0.813427, None]
    assert figures["bytes of the model"] == [2**20, 2**20]
    assert result.missing == ()


def test_reports_that_are_missing_or_broken_are_no_error(tmp_path: Path) -> None:
    base, head = two(tmp_path, many(LABELS), many(LABELS))
    Project(base.folder).file("reports/plots/training.csv", "step,name,value\n1,loss,nan\n2,loss,high\n3,loss,0.5\n")
    Project(base.folder).file("reports/plots/validation.csv", "\x00\xff nothing")
    (base.folder / "reports/plots/reliability.csv").unlink()
    Project(head.folder).file("reports/scores.json", "{")
    result = effect_of(base, replace(head, data={"nonsense": 1}), 3)
    assert result and result.scores
    assert [len(line.dots) for curve in result.curves for line in curve.lines] == [1, 2, 0, 2, *(0, 1) * 3, 0, 2]
    assert result.figures[0] == ("calibration error", 0.03, None)


@pytest.mark.filterwarnings("error")
def test_numbers_of_no_shared_row_are_not_compared(tmp_path: Path) -> None:
    base, head = two(tmp_path, {"a": Row("1", "2")}, {"b": Row("3", "2")})
    Project(base.folder).file("reports/scores.json", {**METRICS, "task": "regression"})
    Project(head.folder).file("reports/scores.json", {**METRICS, "task": "regression"})
    result = effect_of(base, head, 3)
    assert result and result.missing == ("no test row is in both revisions: the scores cannot be compared",)


def test_models_of_different_tasks_are_not_compared(tmp_path: Path) -> None:
    base, head = two(tmp_path, many(LABELS), many(LABELS))
    Project(base.folder).file("reports/scores.json", {**METRICS, "task": "a task of the past"})
    result = effect_of(base, head, 3)
    assert result and result.rows == 0 and result.scores == ()
    assert result.missing == ("the base's task is a task of the past, the head's text-classification",)


def test_without_a_test_split_rows_have_no_texts_and_without_predictions_there_is_no_effect(tmp_path: Path) -> None:
    base, head = two(tmp_path, {"a": Row("bad", "good")}, {"a": Row("bad", "bad")})
    (head.folder / "data/clean/test.parquet").unlink()
    result = effect_of(base, head, 3)
    assert result and result.slices == () and "data/clean/test.parquet of HEAD" in result.missing[0]
    assert [(row.id, row.text) for row in result.improved.examples] == [("a", "")]
    path = head.folder / "data/predictions.parquet"
    pl.read_parquet(path).drop("confidence").write_parquet(path)
    result = effect_of(base, head, 3)
    assert result and result.missing[0].startswith("data/predictions.parquet of HEAD is not there, or not what")
    assert result.rows == result.relabelled == 0 and result.scores == ()
    path.unlink()
    assert effect_of(base, head, 3) is effect_of(head, base, 3) is None


def test_what_is_private_is_masked_in_texts_labels_and_slices_unless_the_params_say_otherwise(tmp_path: Path) -> None:
    mail = "me@example.org"
    base = {f"r{index}": Row(mail, "good", text=f"write to {mail}", stars=mail) for index in range(3)}
    head = {name: replace(row, predicted=mail) for name, row in base.items()}
    plain = {**PARAMS, "evaluate": {**PARAMS["evaluate"], "mask_pii": False}}
    assert mail not in str(effect(tmp_path, base, head)) and mail in str(effect(tmp_path, base, head, data=plain))
