"""What MLflow serves: one pyfunc for every model, whatever is asked of it, wherever it is loaded."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from stages.serving.answers import Question, answers, blank, read_question
from stages.serving.backends import VARIANTS, Package, Predictor, QuickTokens, TransformersTokens, Variant
from stages.tasks import FIRST, load_task, read_decision
from stages.tracking.package import CODE
from tests.unit.small_decisions import label_decision
from tests.unit.small_served import (
    CLEANED,
    DIRTY,
    LABELS,
    LONGEST,
    WORDS,
    make_package,
    probabilities,
    register,
    working_in,
)

TEXTS = [*WORDS, " ".join(WORDS * 9), "BALO, doka!", "balo \u202e\x00 doka", "字 😀 é", ""]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("home")
    with working_in(root) as client:
        register(client, make_package(root))
        yield root


@pytest.fixture(scope="module")
def package(home: Path) -> Package:
    return Package.within(home)


@pytest.fixture(scope="module")
def loaded(home: Path) -> PyFuncModel:
    with pytest.warns(UserWarning, match="not the model's own"):  # this process has imported the checkout's
        return mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"threads": 1})


@pytest.fixture(scope="module")
def classifier(package: Package) -> Predictor:
    return Predictor(package, "onnx", threads=1)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [{"text": "balo", "text_pair": "mini"}, {"text": "doka"}]},
        {"dataframe_split": {"columns": ["text_pair", "text"], "data": [["mini", "balo"], [None, "doka"]]}},
    ],
)
def test_pairs_are_empty_where_a_row_has_none(body: dict[str, Any]) -> None:
    assert read_question(json.dumps(body).encode(), load_task(FIRST)) == Question(["balo", "doka"], ["mini", ""])


def test_a_threshold_is_a_score_or_the_width_of_an_interval() -> None:
    body = {"inputs": ["balo"], "params": {"threshold": 2.5}}
    assert read_question(body, load_task("regression")).threshold == 2.5
    with pytest.raises(ValueError, match=r"params\.threshold: Input should be less than or equal to 1"):
        read_question(body, load_task(FIRST))


def test_where_there_is_nothing_to_read_the_model_abstains(classifier: Predictor) -> None:
    texts = ["", " \n\t", "\x00", "\u200f\u202e\ufeff", "\u00a0"]
    assert all(map(blank, texts))
    given = answers(classifier, Question(texts, threshold=0.0))
    assert [(answer["label"], answer["abstained"]) for answer in given] == [(None, True)] * len(texts)


@pytest.mark.parametrize("variant", VARIANTS[:3])
def test_a_text_is_cleaned_as_those_of_training_were_and_answered_as_if_it_were_alone(
    package: Package, variant: Variant
) -> None:
    classifier = Predictor(package, variant, threads=1)
    raw, clean = answers(classifier, Question([DIRTY, CLEANED], [CLEANED, DIRTY]))
    assert raw == clean
    uncleaned, cleaned = classifier.outputs([DIRTY]), classifier.outputs([CLEANED])
    assert not np.allclose(uncleaned, cleaned, atol=1e-4), "the model would tell them apart"
    for text, answer in zip(TEXTS, answers(classifier, Question(TEXTS)), strict=True):
        (alone,) = answers(classifier, Question([text]))
        assert alone["score"] == pytest.approx(answer["score"], abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_onnx_is_given_the_tokens_of_transformers(package: Package, tmp_path: Path, side: str) -> None:
    model = shutil.copytree(package.model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"padding_side": side, "truncation_side": side, "model_max_length": LONGEST}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    quick, slow = QuickTokens(model), TransformersTokens(model)
    for pairs in (None, TEXTS[::-1]):
        ours, theirs = quick.encode(TEXTS, pairs), slow.encode(TEXTS, pairs)
        assert ours == theirs and max(map(len, ours["input_ids"])) == LONGEST
        np.testing.assert_equal(quick.pad(ours), slow.pad(theirs))


@pytest.mark.parametrize(
    "rows",
    [
        WORDS,
        pd.Series(WORDS),
        pd.DataFrame({"text": WORDS, "text_pair": [None] * len(WORDS)}),
        {"text": np.array(WORDS)},
        [{"text": word} for word in WORDS],
    ],
)
def test_python_may_hand_over_texts_in_any_usual_way(package: Package, loaded: PyFuncModel, rows: Any) -> None:
    table = loaded.predict(rows)
    assert list(table.columns) == ["label", "score", "abstained", "probabilities"]
    expected = probabilities(package, WORDS)
    ranked = [list(answer.values()) for answer in table["probabilities"]]
    np.testing.assert_allclose(ranked, -np.sort(-expected), atol=1e-5)
    assert table["score"].to_list() == [scores[0] for scores in ranked]
    assert [next(iter(answer)) for answer in table["probabilities"]] == [LABELS[index] for index in expected.argmax(1)]
    assert [label is None for label in table["label"]] == table["abstained"].to_list()
    always = loaded.predict(rows, params={"threshold": 0.0, "top_k": 1})
    assert set(always["label"]) <= set(LABELS) and {len(answer) for answer in always["probabilities"]} == {1}


def test_a_flag_says_which_form_of_the_same_version_is_served(package: Package) -> None:
    expected = Predictor(package, "int8", threads=1).outputs([*WORDS, CLEANED])
    served = mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"variant": "int8", "threads": 1})
    rows = [[row[label] for label in LABELS] for row in served.predict([*WORDS, DIRTY])["probabilities"]]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


@pytest.mark.parametrize("rows", [[1.5], pd.DataFrame({"txt": ["a"]}), pd.DataFrame({"text": [None]})])
def test_what_is_no_text_is_an_invalid_parameter_to_python(loaded: PyFuncModel, rows: Any) -> None:
    with pytest.raises(MlflowException, match="inputs"):
        loaded.predict(rows)


def test_a_version_carries_its_card_its_code_and_what_it_needs(home: Path) -> None:
    logged = Path(mlflow.artifacts.download_artifacts("models:/tiny@champion"))
    assert (logged / "artifacts" / "model_card.md").read_text() == "# tiny\n"
    needed = (logged / "requirements.txt").read_text()
    assert re.sub("==[0-9.]+\n?", " ", needed) == "mlflow torch transformers onnxruntime polars ftfy "
    code = {path.relative_to(logged / "code/stages").as_posix() for path in (logged / "code").rglob("*.py")}
    assert code == {*CODE, "tasks/text_classification.py"}
    assert not [path for path in logged.rglob("*") if path.suffix in (".pkl", ".bin", ".pt")]


def test_a_model_without_onnx_or_thresholds_is_served_all_the_same(package: Package, tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()  # empty, as export leaves it that offers nothing
    with working_in(tmp_path) as client:
        register(client, Package(package.model, tmp_path / "exported"))
        assert not mlflow.pyfunc.load_model("models:/tiny@champion").predict(WORDS)["abstained"].any()


def test_a_server_with_too_much_to_do_says_so(loaded: PyFuncModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded.unwrap_python_model()
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "0")
    with model._lock:
        status, content = model.respond(b'{"inputs": ["balo"]}', "application/json")
    assert (status, content["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert model.respond(b'{"inputs": ["balo"]}', "application/json")[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"labels": ["a", "a"]},
        {"labels": ["a", "b"], "temperature": 0},
        {"labels": ["a", "b"], "thresholds": {"c": 0.5}},
    ],
)
def test_a_decision_that_would_change_answers_silently_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "decision.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="is not what it should be"):
        read_decision(tmp_path)


def test_a_decision_of_another_model_is_refused(package: Package, tmp_path: Path) -> None:
    label_decision(list(reversed(LABELS))).write(tmp_path)
    with pytest.raises(ValueError, match="other labels"):
        Predictor(replace(package, serving=tmp_path), "onnx")
