"""Several labels: scores against scikit-learn's, a decision that does not fit chance, the same answer everywhere."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss

from stages.common.params import CleanParams, EvaluateParams, FinetuneParams
from stages.common.params.evaluate import Calibration, Slices, Thresholds
from stages.common.params.tasks import task_spec
from stages.tasks import bootstrap, load_task, read_decision
from stages.tasks.encoder import output_layer
from stages.tasks.multi_label import TASK, SetDecision
from stages.tasks.slices import slice_rows
from tests.models import FILLER, TELLING, put_tokenizer
from tests.unit.small_records import text_rows

LABELS = ["a", "b", "c", "d"]
OF_LABEL = EvaluateParams(thresholds=Thresholds(metric="f1", per="label"))

sets = st.sets(st.sampled_from(LABELS)).map(lambda names: json.dumps(sorted(names), separators=(",", ":")))
pairs = st.lists(st.tuples(sets, sets), min_size=1, max_size=30)


def texts_of(chosen: np.ndarray, labels: list[str] = LABELS) -> list[str]:
    """The canonical texts of sets [n x k] bool."""
    return [json.dumps([labels[number] for number in np.flatnonzero(row)], separators=(",", ":")) for row in chosen]


def frame(column: str, texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({column: texts}, {column: pl.String})


def drawn(chances: np.ndarray, seed: int) -> tuple[np.ndarray, list[str]]:
    """Sets that have each label with just its chance [n x k]: as indicators, and as texts."""
    truth = np.random.default_rng(seed).random(chances.shape) < chances
    return truth, texts_of(truth)


def decision(**fields: Any) -> SetDecision:
    return SetDecision(task="multi-label", labels=LABELS, **fields)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_scores_are_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    actual, predicted = frame("label", [row[0] for row in rows]), frame("prediction", [row[1] for row in rows])
    evidence = TASK.evidence(actual, predicted, LABELS)
    found = bootstrap.scores_of(evidence)
    assert [*found] == [score.name for score in task_spec("multi-label").scores]
    truth, chosen = (
        TASK.indicators(column, LABELS).astype(int) for column in (actual["label"], predicted["prediction"])
    )
    occur = np.flatnonzero((truth | chosen).any(axis=0))
    macro = f1_score(truth, chosen, average="macro", labels=occur, zero_division=0) if len(occur) else 0.0
    assert found == pytest.approx(
        {
            "micro_f1": f1_score(truth, chosen, average="micro", zero_division=0),
            "macro_f1": macro,
            "sample_f1": f1_score(truth, chosen, average="samples", zero_division=1),
            "exact_match": accuracy_score(truth, chosen),
            "hamming_loss": hamming_loss(truth, chosen),
        },
        abs=1e-6,
    )
    parts = np.array([*TASK.part_scores(evidence.statistics.sum(axis=0), LABELS).values()])
    np.testing.assert_allclose(parts, f1_score(truth, chosen, average=None, zero_division=0))
    assert TASK.is_correct(actual, predicted).mean() == pytest.approx(found["exact_match"], abs=1e-6)


def test_a_label_that_no_drawn_row_has_does_not_count_for_the_macro_average() -> None:
    actual, predicted = frame("label", ['["a"]', '["b"]', "[]"]), frame("prediction", ['["a"]', "[]", "[]"])
    evidence = TASK.evidence(actual, predicted, LABELS)
    weights = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    scores = evidence.scores(weights @ evidence.statistics)
    assert scores["macro_f1"].tolist() == [1.0, 0.5]
    assert scores["hamming_loss"].tolist() == [0.0, 1 / 8]


def test_temperature_and_threshold_are_a_labels_own_where_there_are_rows_enough_for_them() -> None:
    logits = np.random.default_rng(0).normal([-1, -1, -1, -9], [2, 2, 2, 1], (2000, 4))
    truth, labels = drawn(expit(logits), 1)
    assert truth.sum(axis=0)[3] < 20
    sure, _ = TASK.fit_decision(OF_LABEL, labels, expit(logits * [1, 3, 1, 2]), decision())
    assert sorted(sure.temperatures) == ["a", "b", "c"]
    assert [sure.temperatures[label] for label in "abc"] == pytest.approx([1, 3, 1], rel=0.15)

    outputs = expit(logits - [0, 0, 4, 0])  # far too shy of c, which no temperature mends
    untouched = OF_LABEL.model_copy(update={"calibration": Calibration(temperature=False)})
    fitted, _ = TASK.fit_decision(untouched, labels, outputs, decision())
    assert not fitted.temperatures and fitted.thresholds["c"] < 0.1 < fitted.threshold
    assert "d" not in fitted.thresholds
    again, _ = drawn(expit(logits), 2)  # what is gained shows on rows that nothing was fitted on
    half, shared, own = (
        f1_score(again, way.chosen(outputs), average="micro")
        for way in (decision(), decision(threshold=fitted.threshold), fitted)
    )
    assert half < shared < own


def test_thresholds_do_not_fit_chance() -> None:
    """Labels whose probabilities are right as they are share one threshold: their best own ones would be chance."""
    own = []
    for seed in range(10):
        chances = np.random.default_rng(seed).beta(0.5, 1.5, (150, 4))
        fitted, _ = TASK.fit_decision(OF_LABEL, drawn(chances, seed + 100)[1], chances, decision())
        own.append(len(fitted.thresholds))
    assert np.mean(own) < 1.5  # of four; without the second half it is three


def test_one_threshold_or_none_is_what_params_may_ask_for() -> None:
    chances = np.random.default_rng(0).beta(0.5, 2, (400, 4))
    labels = drawn(chances, 3)[1]
    shared, _ = TASK.fit_decision(
        EvaluateParams(thresholds=Thresholds(metric="f1", per="shared")), labels, chances, decision()
    )
    assert 0.1 < shared.threshold < 0.5 and not shared.thresholds
    none, _ = TASK.fit_decision(EvaluateParams(), labels, chances, decision())
    assert (none.threshold, none.thresholds) == (0.5, {}) and none.temperatures


def test_a_decision_comes_back_from_its_file_and_nonsense_is_refused(tmp_path: Path) -> None:
    given = decision(temperatures={"a": 2.0}, threshold=0.3, thresholds={"b": 0.9})
    given.write(tmp_path)
    assert read_decision(tmp_path) == given
    for wrong in (
        {"labels": []},
        {"labels": ["a", "a"]},
        {"thresholds": {"z": 0.5}},
        {"thresholds": {"a": 2}},
        {"temperatures": {"a": 0.0}},
        {"threshold": None},
        {"threshold": float("nan")},
        {"more": 1},
    ):
        with pytest.raises(ValueError, match="is not what it should be"):
            SetDecision.of({"task": "multi-label", "labels": LABELS, **wrong}, "decision.json")


def test_answers_and_tables_say_what_is_decided() -> None:
    outputs = np.array([[0.9, 0.2, 0.45, 0.1], [0.1, 0.1, 0.2, 0.3]])
    fitted = decision(thresholds={"c": 0.4})
    decided = TASK.decide(outputs, fitted)
    assert decided["prediction"] == ['["a","c"]', "[]"]
    np.testing.assert_allclose(decided["confidence"], [0.9 * 0.8 * 0.45 * 0.9, 0.9 * 0.9 * 0.8 * 0.7])
    first, second = TASK.answers(outputs, fitted, None, 2)
    assert first["labels"] == [{"label": "a", "probability": 0.9}, {"label": "c", "probability": 0.45}]
    assert (second["labels"], second["abstained"]) == ([], False)
    assert first["probabilities"] == {"a": 0.9, "c": 0.45}
    assert set(first) == set(TASK.signature)
    table = TASK.table(outputs, fitted, 0.4)
    assert (table["labels"], table["abstained"].tolist()) == ([None, "[]"], [True, False])
    assert table["score"].tolist() == decided["confidence"].round(6).tolist()
    assert table["probability_c"].tolist() == [0.45, 0.2]
    assert [answer["labels"] for answer in TASK.answers(outputs, fitted, 0.4, None)] == [None, []]
    assert TASK.blank_answer(first) == {**first, "labels": None, "abstained": True}
    labels, names = TASK.drift_values(outputs, fitted)["labels"]
    assert [(names or [])[number] for number in labels] == ["a", "c", "(none)"]


def test_a_temperature_changes_its_own_label_alone() -> None:
    outputs = TASK.activate(np.array([[4.0, -2.0, 60.0, -800.0]], dtype=np.float32))
    cooled = decision(temperatures={"a": 2.0, "d": 2.0}).calibrated(outputs)
    np.testing.assert_allclose(cooled[0, [0, 3]], expit([2.0, np.log(1e-300) / 2]), rtol=1e-6)
    assert cooled[0, 1:3].tolist() == outputs[0, 1:3].tolist()


def test_strata_are_the_rarest_labels_and_names_are_renamed_inside_of_sets() -> None:
    labels = pl.Series("label", ['["a","b"]', '["a"]', "[]", '["b","c"]', None, '["a","b","c"]', '["a","c"]'])
    strata = TASK.strata(labels, CleanParams())
    assert (strata.name, strata.to_list()) == ("label", ["b", "a", "(none)", "b", None, "b", "c"])
    names = {"a": "x", "b": "x", "c": None}
    renamed = [TASK.renamed(label, names) for label in labels.drop_nulls()]
    assert renamed == ['["x"]', '["x"]', "[]", '["x"]', '["x"]', '["x"]']
    assert TASK.renamed('["c"]', names) is None
    space = TASK.label_space(labels)
    assert space == {"labels": {"a": 0, "b": 1, "c": 2}, "rows": [7, 4, 3, 3]}
    assert TASK.targets(['["c"]', "[]"], space) == [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    scores = TASK.validation_scores(np.array([[-1.0, 2, 3], [-1, -1, -1]]), np.array([[0.0, 1, 0], [0, 0, 0]]), space)
    assert (scores["micro_f1"], scores["exact_match"]) == (0.666667, 0.5)


def tagged(number: int, seed: int) -> pl.DataFrame:
    """Sentences with a telling word for each of their labels, `good` and `bad`."""
    generator = np.random.default_rng(seed)
    has = generator.random((number, 2)) < [0.3, 0.6]
    texts = [
        " ".join(
            [
                *generator.choice(FILLER, 4),
                *(generator.choice(TELLING[name]) for name in np.array(["bad", "good"])[row]),
            ]
        )
        for row in has
    ]
    return text_rows(texts).with_columns(label=pl.Series(texts_of(has, ["bad", "good"])))


@pytest.mark.parametrize("labels", [["bad", "good"], ["good"]])
def test_baselines_choose_sets(labels: list[str], base: Path, tmp_path: Path) -> None:
    train, validation, test = (
        rows.with_columns(
            label=pl.Series(
                [json.dumps([name for name in json.loads(cell) if name in labels]) for cell in rows["label"]]
            )
        )
        for rows in (tagged(120, 0), tagged(60, 1), tagged(60, 2))
    )
    parts, tuned = (train, validation, test), put_tokenizer(base, tmp_path, longest=16)
    found = {
        name: bootstrap.scores_of(
            TASK.evidence(test, frame("prediction", [*TASK.baseline(name, parts, base, tuned, None)]))
        )
        for name in task_spec("multi-label").baselines
    }
    assert found["tfidf"]["micro_f1"] > 0.85 > found["majority_set"]["micro_f1"]
    assert found["base_model"]["exact_match"] > found["majority_set"]["exact_match"]


def test_the_report_has_scores_by_label_what_thresholds_gain_and_what_was_taken_for_what() -> None:
    chances = np.random.default_rng(5).beta(0.5, 2, (300, 4))
    truth, labels = drawn(chances, 6)
    truth[:, 3] = False  # nowhere on test
    rows, raw = frame("label", texts_of(truth)), expit(2 * np.log(chances / (1 - chances)))
    fitted, chosen = TASK.fit_decision(OF_LABEL, labels, raw, decision())
    outputs = fitted.calibrated(raw)
    params, train = SimpleNamespace(evaluate=OF_LABEL), frame("label", ['["a","b"]', '["a","c","d"]', '["b","d"]'])
    entries, tables = TASK.report(params, train, rows, raw, fitted, chosen)  # type: ignore[arg-type]
    known = average_precision_score(truth[:, :3], outputs[:, :3], average="macro")
    assert entries["mean_average_precision"] == pytest.approx(known, abs=1e-6)
    assert "average_precision" not in entries["per_class"]["d"]
    assert entries["per_class"]["a"]["support"] == truth[:, 0].sum()
    errors = entries["calibration"]
    assert errors["ece"] < errors["ece_before"] and errors["log_loss"] < errors["log_loss_before"]
    assert len(TASK.messages(entries)) == 2
    gained = entries["thresholds"]
    assert gained["half"]["micro_f1"] < gained["shared"]["micro_f1"]
    assert gained["shared"] == gained["chosen"] or fitted.thresholds
    assert tables["precision_recall"]["label"].unique().sort().to_list() == ["a", "b", "c"]
    assert tables["reliability"]["label"].unique().sort().to_list() == ["as trained", "calibrated"]
    assert tables["per_label"]["label"].to_list() == LABELS
    predictions = pl.DataFrame(TASK.decide(outputs, fitted))
    confusion = TASK.confusion(rows, predictions)
    hits = confusion.filter(pl.col("actual") == pl.col("predicted")).height
    assert hits == (truth & fitted.chosen(outputs)).sum()
    assert tables["co_occurrence"]["rows"].sum() == confusion.height - hits
    both = int(fitted.chosen(outputs)[:, 1:3].all(axis=1).sum())  # the only pair that train has not
    assert entries["unseen_pairs"] == {"pairs": 1, "commonest": [["b", "c", both]]} and both
    assert TASK.confusion(frame("label", ['["a","b"]', "[]"]), frame("prediction", ['["b","c"]', '["d"]'])).rows() == [
        ("b", "b"), ("a", "c"), ("(none)", "d"),
    ]  # fmt: skip


def test_rows_are_sliced_by_how_many_labels_they_have_and_by_pairs_of_them() -> None:
    rows = frame("label", ['["a","b"]', "[]", '["a","b","c"]', '["c"]', '["a","b"]']).with_columns(text=pl.lit("text"))
    slices = slice_rows(rows, Slices(length_bins=1, columns=[], min_rows=1), TASK)[1:]
    assert [(name, part.tolist()) for name, part in slices] == [
        ("pair: a, b", [0, 2, 4]), ("labels: 2", [0, 4]),
        ("labels: 1", [3]), ("labels: 3", [2]), ("pair: a, c", [2]), ("pair: b, c", [2]),
    ]  # fmt: skip


def test_behaviour_is_equal_sets_a_label_in_the_set_or_a_probability_that_moves() -> None:
    outputs = np.array([[0.8, 0.7, 0.1, 0.1], [0.3, 0.1, 0.1, 0.1]])
    found = pl.DataFrame(TASK.decide(outputs, decision()))
    before = pl.Series(['["a","b"]', '["a"]'])
    assert TASK.meets("invariance", before, found).tolist() == [True, False]
    assert TASK.meets("minimum", pl.Series(["b", "b"]), found).tolist() == [True, False]
    assert TASK.moved(outputs, decision(), ["b", "a"]).tolist() == [0.7, 0.3]
    sure = TASK.moved(outputs, decision(), found["prediction"].to_list())
    assert sure.tolist() == pytest.approx(found["confidence"].to_list())


def test_a_label_that_does_not_fit_the_probabilities_is_the_worst() -> None:
    outputs = np.array([[0.9, 0.1, 0.1, 0.2], [0.9, 0.1, 0.1, 0.2], [0.1, 0.1, 0.1, 0.1]])
    quality = TASK.label_quality(frame("label", ['["a"]', '["a","b"]', "[]"]), outputs, decision())
    assert quality.argsort().tolist() == [1, 0, 2]
    assert 0 <= quality.min() < 0.5 < quality.max() <= 1


def test_a_model_has_an_output_for_each_label(base: Path, tmp_path: Path) -> None:
    task: Any = load_task("multi-label")
    space = task.label_space(pl.Series(['["b"]', '["a","b"]', '["b"]', "[]"]))
    assert space == {"labels": {"a": 0, "b": 1}, "rows": [4, 1, 3]}
    model = task.build_model(base, space, FinetuneParams(), 0)
    assert output_layer(model).bias.tolist() == pytest.approx(np.log([2 / 4, 4 / 2]))  # as frequent as in the rows
    weighted = task.build_model(
        base, space, FinetuneParams(class_weights="balanced"), 0
    )  # a row with a counts three times
    assert output_layer(weighted).bias.tolist() == pytest.approx(np.log([3 * 2 / 4, 4 / 2 / 3]))
    model.save_pretrained(tmp_path)
    assert model.config.problem_type == "multi_label_classification"
    assert task.undecided(tmp_path).labels == ["a", "b"]
