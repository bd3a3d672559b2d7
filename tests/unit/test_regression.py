"""Numbers: scores are scipy's and scikit-learn's, intervals hold what they promise, heads answer in data units."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from transformers import AutoConfig, AutoModel

from stages.common.errors import AttuneError
from stages.common.params import CleanParams, EvaluateParams, FinetuneParams
from stages.common.params.evaluate import Bootstrap
from stages.common.params.tasks import task_spec
from stages.tasks import load_task, read_decision
from stages.tasks.base import Refused
from stages.tasks.bootstrap import gains, scores_of, scores_with_intervals
from stages.tasks.errors import LEAST_ROWS, conformal
from stages.tasks.regression import NumberDecision, numbers_of, rounded
from stages.tasks.targets import canonical_number, deciles
from tests.models import put_tokenizer
from tests.unit.small_records import text_rows

TASK = load_task("regression")
QUICK = Bootstrap(resamples=200)

pairs = st.integers(2, 40).flatmap(
    lambda rows: st.tuples(*[st.lists(st.integers(-8, 8), min_size=rows, max_size=rows)] * 2)
)


def labelled(numbers: Any) -> pl.DataFrame:
    return pl.DataFrame({"label": [canonical_number(number) for number in numbers]}, schema={"label": pl.String})


def predicted(numbers: Any) -> pl.DataFrame:
    return labelled(numbers).rename({"label": "prediction"})


def noisy(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of 0 to 5, and predictions that are the further off the greater they are."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(0, 5, rows)
    return (values + generator.normal(0, 0.1 + 0.2 * values)).round(3), rounded(values)


@given(pairs, st.sampled_from([0.0, 1e6]))
def test_scores_are_those_of_scipy_and_scikit_learn(numbers: Any, shift: float) -> None:
    actual, values = (np.array(part) / 4 + shift for part in numbers)
    evidence = TASK.evidence(labelled(actual), predicted(values))
    varied = [len(set(part)) > 1 for part in numbers]
    theirs = {
        "mae": mean_absolute_error(actual, values),
        "rmse": root_mean_squared_error(actual, values),
        "r2": r2_score(actual, values) if varied[0] else 0.0,  # where scikit-learn says 1 or 0
        "pearson": pearsonr(actual, values).statistic if all(varied) else 0.0,  # where scipy says nan
        "spearman": spearmanr(actual, values).statistic if all(varied) else 0.0,
    }
    ours = scores_of(evidence)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert {score.name for score in task_spec("regression").scores} == set(ours)


@given(pairs, st.randoms(use_true_random=False))
def test_scores_of_drawn_rows_are_those_of_the_rows_written_out(numbers: Any, random: Any) -> None:
    rows, predictions = labelled(numbers[0]), predicted(numbers[1])
    drawn = np.array([[random.randrange(rows.height) for _ in range(rows.height)] for _ in range(3)])
    weights = np.array([np.bincount(draw, minlength=rows.height) for draw in drawn], np.float64)
    evidence = TASK.evidence(rows, predictions)
    assert evidence.ranked is not None
    ours = {**evidence.scores(weights @ evidence.statistics), **evidence.ranked(drawn)}
    for number, draw in enumerate(drawn):
        alone = scores_of(TASK.evidence(rows[draw], predictions[draw]))
        assert {name: value[number] for name, value in ours.items()} == pytest.approx(alone, abs=1e-6)


def test_intervals_hold_the_score_and_gains_point_the_right_way() -> None:
    actual, values = noisy(300, 0)
    ours, theirs = (TASK.evidence(labelled(actual), predicted(numbers)) for numbers in (values, values + 1))
    scores = scores_with_intervals(ours, QUICK, 1)
    assert all(scores[f"{name}_low"] < scores[name] < scores[f"{name}_high"] for name in ("mae", "spearman", "r2"))
    assert scores["spearman_high"] - scores["spearman_low"] < 0.1
    gained = gains(ours, theirs, task_spec("regression").scores, QUICK, 1)
    assert gained["mae_gain_low"] > 0 and gained["r2_gain_low"] > 0 and gained["spearman_gain"] == 0


@pytest.mark.parametrize("rows", [60, 150, 1500])
def test_intervals_hold_the_share_that_was_asked_for(rows: int) -> None:
    found = []
    for seed in range(20):
        (actual, values), (unseen, answers) = noisy(rows, seed), noisy(4000, 100 + seed)
        edges, margins = conformal(actual, values, 0.9)
        margin = NumberDecision(task="regression", edges=edges, margins=margins).margins_of(answers)
        found.append((np.abs(unseen - answers) <= margin).mean())
    assert len(margins) == max(1, min(5, rows // LEAST_ROWS))
    assert margins == sorted(margins)  # the greater the number, the wider
    assert abs(float(np.mean(found)) - 0.9) < 0.01


def test_intervals_of_equal_answers_and_of_few_rows() -> None:
    actual, _ = noisy(500, 0)
    assert conformal(actual, np.full(500, 2.5), 0.9)[0] == []
    assert len(conformal(actual, np.repeat([1.0, 2.0], [50, 450]), 0.9)[1]) == 2  # 50 rows: the margin of all
    assert conformal(actual[:8], np.zeros(8), 0.9) == ([], [])
    assert conformal(actual[:9], np.zeros(9), 0.9) == ([], [pytest.approx(np.abs(actual[:9]).max())])


def test_a_decision_is_fitted_written_and_read_and_answers_agree_with_it(tmp_path: Path) -> None:
    actual, values = noisy(500, 0)
    labels, outputs = labelled(actual)["label"].to_list(), values[:, None]
    undecided = TASK.undecided(tmp_path)
    fitted, seen = TASK.fit_decision(EvaluateParams(max_width=2.0), labels, outputs, undecided)
    fitted.write(tmp_path)
    decision = read_decision(tmp_path)
    assert decision == fitted and len(seen[0]) == 500
    decided = TASK.decide(outputs, decision)
    width = np.array(decided["high"]) - np.array(decided["low"])
    assert decided["confidence"] is None
    assert numbers_of(decided["prediction"]).tolist() == values.tolist()
    assert decided["abstained"].tolist() == (width > 2.0).tolist() and 0 < decided["abstained"].mean() < 1
    answers, table = TASK.answers(outputs, decision, None, None), TASK.table(outputs, decision, None)
    assert list(answers[0]) == list(table) == list(TASK.signature)
    assert [answer["low"] for answer in answers] == table["low"] == decided["low"].to_list()
    assert [answer["value"] is None for answer in answers] == table["abstained"] == decided["abstained"].tolist()
    assert not any(TASK.decide(outputs, decision, 100.0)["abstained"])
    assert TASK.blank_answer(answers[0])["abstained"]
    plain = TASK.answers(outputs[:1], undecided, None, None)[0]
    assert plain == {"value": values[0], "low": None, "high": None, "abstained": False}
    assert TASK.decide(outputs, undecided, 9.0)["abstained"].all()  # no interval is no narrow one


@pytest.mark.parametrize(
    "wrong",
    [{"edges": [2.0, 1.0], "margins": [0.1] * 3}, {"edges": [1.0]}, {"margins": [-1.0]}, {"max_width": 0.0}],
)
def test_a_decision_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"decision\.json is not what it should be"):
        NumberDecision.of({"task": "regression", **wrong}, "decision.json")


def test_the_folded_head_says_what_the_standardised_one_meant(base: Path) -> None:
    labels = pl.Series(["70", "72.5", "68", "71"])
    space = TASK.label_space(labels)
    assert space == pytest.approx({"mean": 70.375, "deviation": np.std([70, 72.5, 68, 71])})
    assert TASK.label_space(labels.sort()) == space
    targets = np.array(TASK.targets(labels.to_list(), space))
    assert (targets.mean(), targets.std()) == pytest.approx((0, 1))
    model = TASK.build_model(base, space, FinetuneParams(), 3).eval()
    assert (model.config.problem_type, model.config.id2label) == ("regression", {0: "value"})
    inputs = {"input_ids": torch.arange(12).reshape(4, 3)}
    with torch.inference_mode():
        before = model(**inputs).logits.numpy()
        TASK.finished(model, space, Path())
        after = TASK.activate(model(**inputs).logits.numpy())
    np.testing.assert_allclose(after, before * space["deviation"] + space["mean"], rtol=1e-6)
    assert after.shape == (4, 1) and after.dtype == np.float64
    scores = TASK.validation_scores(before, targets, space)
    in_units = scores_of(TASK.evidence(labelled(numbers_of(labels)), predicted(after[:, 0])))
    assert scores == pytest.approx(in_units, abs=1e-3)  # the model has said nearly the same four times


def test_a_head_without_a_bias_is_refused_before_training(tmp_path: Path) -> None:
    AutoModel.from_config(
        AutoConfig.for_model("gpt2", vocab_size=60, n_embd=16, n_layer=1, n_head=2, pad_token_id=1)
    ).save_pretrained(tmp_path)
    with pytest.raises(AttuneError, match="the head of a gpt2 has no bias"):
        TASK.build_model(tmp_path, {}, FinetuneParams(), 0)


def test_a_target_is_a_finite_number_in_its_range() -> None:
    params: Any = SimpleNamespace(range=[0.0, 5.0])
    assert [TASK.parse_target(cell, params) for cell in ("3.80", " 0 ", "5e0")] == ["3.8", "0", "5"]
    for cell, rule in (("5.01", "out_of_range"), ("nan", "bad_target"), ("3,8", "bad_target"), ("good", "bad_target")):
        with pytest.raises(Refused) as refusal:
            TASK.parse_target(cell, params)
        assert refusal.value.rule == rule


def test_targets_are_merged_parted_and_counted() -> None:
    params = CleanParams(conflict_above=0.2)
    assert TASK.merged(["0.6", "0.8"], params) == "0.7"
    assert TASK.merged(["0.6", "0.8001"], params) is None
    labels = pl.Series("label", [canonical_number(number / 10) for number in range(100)])
    strata = TASK.strata(labels, params)
    assert strata.n_unique() == 10 and (strata[0], strata[-1]) == ("below 0.9", "8.9 and more")
    assert list(TASK.counts(pl.concat([labels, labels.clear(1)]), params))[:2] == ["below 0.9", "0.9 to 1.9"]
    settled = TASK.settled(labels, CleanParams())
    assert settled.split.deciles == deciles(numbers_of(labels)) and len(settled.split.deciles) == 9
    assert TASK.settled(labels.head(5), settled) == settled
    assert TASK.strata(labels.head(5), settled).to_list() == ["below 0.9"] * 5
    assert TASK.names("1") == []


def test_right_same_and_as_it_should_behave() -> None:
    rows, predictions = labelled([0, 1, 2, 3]), predicted([0.5, 1.6, 2, 3])  # standard deviation 1.118
    assert TASK.is_correct(rows, predictions).tolist() == [True, False, True, True]
    near = predicted([0.54, 1.7, 2, 3])
    assert TASK.agreeing(predictions, near).tolist() == [True, False, True, True]
    assert TASK.agreeing(predicted([3.14159]), predicted([3.1416])).all()
    assert TASK.meets("invariance", predictions["prediction"], near).all()
    quality = TASK.label_quality(rows, np.array([[0.5], [1.6], [2.0], [9.0]]), None)
    assert np.argsort(quality).tolist() == [3, 1, 0, 2] and quality[2] == 1.0 and quality[3] > 0


def test_the_report_counts_every_row() -> None:
    (actual, values), seen = noisy(800, 0), noisy(500, 1)
    rows, outputs = labelled(actual), values[:, None]
    params: Any = SimpleNamespace(evaluate=EvaluateParams(max_width=2.0), clean=CleanParams())
    decision, fitted = TASK.fit_decision(
        params.evaluate, labelled(seen[0])["label"].to_list(), seen[1][:, None], TASK.undecided(Path())
    )
    entries, tables = TASK.report(params, rows, rows, outputs, decision, fitted)
    found = entries["calibration"]
    assert found["coverage_low"] < 0.9 < found["coverage_high"] and found["validation_rows"] == 500
    assert found["nominal"] == 0.9 and 0 < entries["thresholds"]["coverage"] < 1
    assert entries["thresholds"]["mae"] < mean_absolute_error(actual, values)
    for name in ("scatter", "residuals", "error_by_decile"):
        assert tables[name]["rows"].sum() == 800
    assert tables["scatter"].height <= 64 * 64
    parts = tables["error_by_decile"]
    assert (parts["rows"] * parts["mae"]).sum() / 800 == pytest.approx(mean_absolute_error(actual, values), abs=1e-5)
    diagram = tables["reliability"]
    assert diagram.columns == ["label", "bin", "confidence", "share", "rows"] and diagram.height == 6
    assert (diagram["share"] - diagram["confidence"]).abs().max() < 0.08
    assert TASK.messages(entries)[0].startswith("intervals for 90%: 9")
    decision, fitted = TASK.fit_decision(params.evaluate, ["1", "2"], outputs[:2], TASK.undecided(Path()))
    entries, tables = TASK.report(params, rows, rows, outputs, decision, fitted)
    assert (
        entries["calibration"]["coverage"] is None
        and "2 validation rows are too few" in entries["calibration"]["problem"]
    )
    assert tables["reliability"]["confidence"].to_list() == [0.5, 0.6]


def told(number: int, seed: int, paired: bool) -> pl.DataFrame:
    """Texts whose number of warm words is the label; of pairs, how many of the words of the first the second has."""
    generator = np.random.default_rng(seed)
    words = ["warm", "dull", "film", "story", "flat"]
    firsts = [generator.choice(words, 4).tolist() for _ in range(number)]
    if not paired:
        return text_rows([" ".join(some) for some in firsts]).with_columns(
            label=pl.Series([str(some.count("warm")) for some in firsts])
        )
    kept = generator.integers(0, 5, number)
    seconds = [
        some[:count] + ["odd", "weird", "noisy", "quaint"][count:] for some, count in zip(firsts, kept, strict=True)
    ]
    rows = text_rows([" ".join(some) for some in firsts], [" ".join(some) for some in seconds])
    return rows.with_columns(label=pl.Series([str(count) for count in kept]))


@pytest.mark.parametrize("paired", [False, True])
def test_baselines_learn_what_they_can(base: Path, tmp_path: Path, paired: bool) -> None:
    train, validation, test = (told(rows, seed, paired) for seed, rows in enumerate((300, 60, 60)))
    errors, tuned = {}, put_tokenizer(base, tmp_path, longest=16)
    for name in task_spec("regression").baselines:
        answer = TASK.baseline(name, (train, validation, test), base, tuned, None)
        if answer is not None:
            errors[name] = mean_absolute_error(numbers_of(test["label"]), numbers_of(answer))
    assert list(errors) == [name for name in task_spec("regression").baselines if paired or name != "base_cosine"]
    assert errors["tfidf"] < 0.7 * errors["mean"] and errors["base_model"] < 0.8 * errors["mean"]
    assert not paired or errors["base_cosine"] < 0.9 * errors["mean"]
