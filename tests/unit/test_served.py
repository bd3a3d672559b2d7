"""What MLflow serves: one pyfunc for every model, whatever is asked of it, wherever it is loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from small_served import (
    CLEANED,
    DIRTY,
    LABELS,
    LONGEST,
    THRESHOLD,
    WORDS,
    make_package,
    probabilities,
    register,
    working_in,
)

from stages.common.serving.answers import Question, answers, blank, read_question
from stages.common.serving.classifier import VARIANTS, Classifier, Package, Variant
from stages.common.serving.decision import Decision
from stages.common.serving.tokens import QuickTokens, TransformersTokens
from stages.common.tracking import packaging
from stages.common.tracking.packaging import PACKAGE_TAG, fetch_model, fetch_package, package_digest

PROJECT = Path(__file__).resolve().parents[2]
TEXTS = [*WORDS, " ".join(WORDS), "BALO, doka!", "balo \u202e\x00 doka", "字 😀 é", ""]


@dataclass(frozen=True)
class Home:
    """A package, champion in a store of its own."""

    root: Path
    package: Package
    client: MlflowClient


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Home]:
    root = tmp_path_factory.mktemp("home")
    package = make_package(root / "models")
    with working_in(root) as client:
        register(client, package)
        yield Home(root, package, client)


@pytest.fixture(scope="module")
def loaded(home: Home) -> PyFuncModel:
    return mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"threads": 1})


@pytest.fixture(scope="module")
def classifier(home: Home) -> Classifier:
    return Classifier(home.package, "onnx", threads=1)


def asked(**body: Any) -> Question:
    return read_question(json.dumps(body).encode())


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": ["balo", "doka"]},
        {"instances": ["balo", "doka"]},
        {"inputs": [{"text": "balo"}, {"text": "doka"}]},
        {"instances": [{"text": "balo", "text_pair": None}, {"text": "doka"}]},
        {"dataframe_records": [{"text": "balo"}, {"text": "doka"}]},
        {"dataframe_split": {"columns": ["text"], "data": [["balo"], ["doka"]]}},
        {"dataframe_split": {"index": [7, 9], "columns": ["text"], "data": [["balo"], ["doka"]]}},
    ],
)
def test_all_forms_of_mlflow_ask_the_same(body: dict[str, Any]) -> None:
    assert asked(**body) == Question(["balo", "doka"])


def test_pairs_are_empty_where_a_row_has_none() -> None:
    expected = Question(["balo", "doka"], ["mini", ""])
    assert asked(inputs=[{"text": "balo", "text_pair": "mini"}, {"text": "doka"}]) == expected
    split = {"columns": ["text_pair", "text"], "data": [["mini", "balo"], [None, "doka"]]}
    assert asked(dataframe_split=split) == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"inputs": ["caf\xe9"]}', "Invalid JSON"),
        (b'{"inputs": ["\\udc00"]}', "lone leading surrogate"),
        (b'{"inputs": ["a", null]}', "inputs.1: Input should be"),
        (b'{"inputs": [{"text": null}]}', "inputs.0.text: Input should be a valid string"),
        (b'{"inputs": [{"text": "a"}, {"txt": "a"}]}', "inputs.1.text: Field required"),
        (b'{"inputs": ["a", 1]}', "inputs.1: Input should be"),
        (b'{"inputs": {"text": ["a"]}}', "inputs: Input should be a valid array"),
        (b'{"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}}', "dataframe_split: Input should"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}}', "dataframe_split.0: Input should be"),
        (b'{"dataframe_split": {"columns": ["text"], "data": [null]}}', "dataframe_split.0: Input should be"),
        (b'{"inputs": ["a"], "params": {"topk": 1}}', "params.topk: Extra inputs"),
        (b'{"inputs": ["a"], "instances": ["a"]}', "exactly one of"),
        (b"[" * 10_000, "recursion limit"),
        (b'{"inputs": ' + b"1" * 10_000 + b"}", "number out of range"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_question(body)
    assert len(str(refused.value)) < 200


NAMES = ["text", "text_pair", "columns", "data", "top_k", "threshold", "x"]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["text", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["inputs", "dataframe_split", "params", "x"]), JUNK, max_size=2) | JUNK)
def test_any_json_is_read_or_refused_in_a_few_words(value: Any) -> None:
    try:
        question = read_question(json.dumps(value).encode())
    except ValueError as error:
        assert 0 < len(str(error)) < 200
    else:
        assert all(isinstance(text.encode(), bytes) for text in [*question.texts, *(question.pairs or [])])


# ── what is answered ────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_are_calibrated_ranked_and_whole(home: Home, classifier: Classifier) -> None:
    expected = probabilities(home.package, TEXTS)
    for answer, row in zip(answers(classifier, Question(TEXTS)), expected, strict=True):
        order = np.argsort(-row)
        assert list(answer["probabilities"]) == [LABELS[at] for at in order]
        np.testing.assert_allclose(list(answer["probabilities"].values()), row[order], atol=1e-5)
        assert answer["score"] == next(iter(answer["probabilities"].values()))


def test_a_request_may_ask_for_another_threshold_and_fewer_labels(classifier: Classifier) -> None:
    own = answers(classifier, Question(WORDS))
    assert {answer["abstained"] for answer in own} == {True, False}
    assert all(answer["abstained"] == (answer["score"] < THRESHOLD) == (answer["label"] is None) for answer in own)
    always = answers(classifier, Question(WORDS, threshold=0.0, top_k=1))
    assert [[answer["label"]] for answer in always] == [list(answer["probabilities"]) for answer in always]
    assert all(answer["label"] is None for answer in answers(classifier, Question(WORDS, threshold=1.0)))
    assert [len(answer["probabilities"]) for answer in answers(classifier, Question(["balo"], top_k=10**30))] == [3]


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "\u200f\u202e\ufeff", "\u00a0"])
def test_where_there_is_nothing_to_read_the_model_abstains(classifier: Classifier, text: str) -> None:
    assert blank(text)
    (answer,) = answers(classifier, Question([text], threshold=0.0))
    assert (answer["label"], answer["abstained"]) == (None, True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_is_read_as_the_texts_of_training_were(home: Home, variant: Variant) -> None:
    classifier = Classifier(home.package, variant, threads=1)
    for raw, clean in ((DIRTY, CLEANED), ("<br />caf\u00c3\u00a9 &amp; more", "caf\u00e9 & more")):
        for question in (Question([raw, clean]), Question([raw, clean], [clean, raw])):
            first, second = answers(classifier, question)
            assert first == second
    uncleaned, cleaned = classifier.probabilities([DIRTY]), classifier.probabilities([CLEANED])
    assert not np.allclose(uncleaned, cleaned, atol=1e-4), "the model would tell them apart"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_is_answered_as_if_it_were_alone(home: Home, variant: Variant) -> None:
    classifier = Classifier(home.package, variant, threads=1)
    together = answers(classifier, Question(TEXTS))
    for text, answer in zip(TEXTS, together, strict=True):
        (alone,) = answers(classifier, Question([text]))
        assert alone["score"] == pytest.approx(answer["score"], abs=1e-6)


def test_long_texts_are_cut_as_in_training(classifier: Classifier) -> None:
    long = " ".join(WORDS * 50)
    assert len(classifier.tokens.encode([long], None)["input_ids"][0]) == LONGEST
    cut, longer = answers(classifier, Question([long, long + " balo"]))
    assert cut == longer


def test_pairs_are_answered_as_pairs(home: Home, classifier: Classifier) -> None:
    pairs = WORDS[::-1]
    expected = probabilities(home.package, WORDS, pairs).max(1)
    found = [answer["score"] for answer in answers(classifier, Question(WORDS, pairs))]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(expected, probabilities(home.package, WORDS).max(1), atol=1e-2)


def test_onnx_is_given_the_tokens_of_transformers(home: Home) -> None:
    quick, slow = QuickTokens(home.package.model), TransformersTokens(home.package.model)
    long = [*TEXTS, " ".join(WORDS * 4)]
    for pairs in (None, long[::-1]):
        ours, theirs = quick.encode(long, pairs), slow.encode(long, pairs)
        assert ours == theirs
        padded, wanted = quick.pad(ours), slow.pad(theirs)
        assert {name: values.tolist() for name, values in padded.items()} == {
            name: values.tolist() for name, values in wanted.items()
        }
        assert all(padded[name].dtype == values.dtype for name, values in wanted.items())


def test_tokenizers_that_pad_and_cut_on_the_left_are_followed(home: Home, tmp_path: Path) -> None:
    model = shutil.copytree(home.package.model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"padding_side": "left", "truncation_side": "left", "model_max_length": 6}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    quick, slow = QuickTokens(model), TransformersTokens(model)
    ours, theirs = quick.encode(TEXTS, None), slow.encode(TEXTS, None)
    assert ours == theirs
    assert (quick.pad(ours)["input_ids"] == slow.pad(theirs)["input_ids"]).all()


# ── the model that was registered ───────────────────────────────────────────────────────────────────────────────────


def scores(package: Package, texts: list[str] = WORDS) -> np.ndarray:
    return probabilities(package, texts).max(1)


@pytest.mark.parametrize(
    "rows",
    [
        WORDS,
        np.array(WORDS),
        pd.Series(WORDS),
        pd.DataFrame({"text": WORDS, "text_pair": [None] * len(WORDS)}),
        {"text": np.array(WORDS)},
        [{"text": word} for word in WORDS],
    ],
    ids=["list", "array", "series", "table", "columns", "rows"],
)
def test_python_may_hand_over_texts_in_any_usual_way(home: Home, loaded: PyFuncModel, rows: Any) -> None:
    found = loaded.predict(rows)
    assert list(found.columns) == ["label", "score", "abstained", "probabilities"]
    np.testing.assert_allclose(found["score"].astype(float), scores(home.package), atol=1e-5)
    assert [label is None for label in found["label"]] == found["abstained"].to_list()


def test_python_may_ask_for_params(loaded: PyFuncModel) -> None:
    found = loaded.predict(WORDS, params={"threshold": 0.0, "top_k": 1})
    assert all(label in LABELS for label in found["label"])
    assert {len(answer) for answer in found["probabilities"]} == {1}


@pytest.mark.parametrize("rows", [[None], [1.5], pd.DataFrame({"txt": ["a"]}), pd.DataFrame({"text": [None]})])
def test_python_is_told_what_is_wrong_as_well(loaded: PyFuncModel, rows: Any) -> None:
    with pytest.raises(MlflowException) as caught:
        loaded.predict(rows)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_form_that_the_version_has_not_is_refused_at_once(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model has no int8; it has torch"):
        Classifier(Package(home.package.model), "int8")
    with pytest.raises(ValueError, match="the model has no int9"):
        mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"variant": "int9"})


def test_a_version_carries_its_card_its_digest_and_what_it_needs(home: Home) -> None:
    version = home.client.get_model_version_by_alias("tiny", "champion")
    assert version.description == "# tiny\n"
    assert version.tags[PACKAGE_TAG] == package_digest(home.package)
    logged = Path(mlflow.artifacts.download_artifacts("models:/tiny@champion"))
    assert (logged / "artifacts" / "model_card.md").read_text() == "# tiny\n"
    needed = (logged / "requirements.txt").read_text()
    assert re.sub("==[0-9.]+\n?", " ", needed) == "mlflow torch transformers onnxruntime polars ftfy "
    code = sorted(path.relative_to(logged / "code").as_posix() for path in (logged / "code").rglob("*.py"))
    assert code == sorted(f"stages/{path}" for path in packaging.CODE)
    assert not [path for path in logged.rglob("*") if path.suffix in (".pkl", ".bin", ".pt")]


def test_the_digest_of_a_package_tells_thresholds_apart(home: Home, tmp_path: Path) -> None:
    other = Package(home.package.model, home.package.exported, tmp_path)
    Decision(LABELS, 1.5, {"bad": 0.9}).write(tmp_path)
    assert package_digest(other) != package_digest(home.package)
    assert package_digest(Package(home.package.model)) == package_digest(Package(home.package.model, None, None))


def test_a_fetched_package_is_the_one_that_was_registered(home: Home, tmp_path: Path) -> None:
    for which in ("champion", "1"):
        fetched = fetch_package("tiny", which, tmp_path / which)
        assert fetched.variants == ["torch", "onnx", "int8"]
        assert package_digest(fetched) == package_digest(home.package)
    model = fetch_model("tiny", "champion", tmp_path / "model")
    assert (probabilities(Package(model), WORDS) == probabilities(home.package, WORDS)).all()


def test_a_model_without_onnx_or_thresholds_is_served_all_the_same(home: Home, tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()  # as export leaves it that offers nothing
    with working_in(tmp_path) as client:
        register(client, Package(home.package.model, tmp_path / "exported"))
        found = mlflow.pyfunc.load_model("models:/tiny@champion").predict(WORDS)
        assert not found["abstained"].any()
        needed = Path(mlflow.artifacts.download_artifacts("models:/tiny@champion/requirements.txt")).read_text()
        assert "onnxruntime" not in needed


def test_a_version_in_mlflows_own_flavour_can_still_be_fetched(home: Home, tmp_path: Path) -> None:
    """As versions were logged before: weights and tokenizer in folders of their own."""
    import transformers

    with working_in(tmp_path) as client:
        tokenizer = transformers.AutoTokenizer.from_pretrained(home.package.model)
        network = transformers.AutoModelForSequenceClassification.from_pretrained(home.package.model)
        with mlflow.start_run():
            mlflow.transformers.log_model(
                transformers.pipeline("text-classification", model=network, tokenizer=tokenizer, device="cpu"),
                name="model",
                model_card=None,
                pip_requirements=["mlflow"],
                registered_model_name="earlier",
            )
        fetched = fetch_package("earlier", "1", tmp_path / "fetched")
        assert fetched.variants == ["torch"]
        assert (probabilities(fetched, WORDS) == probabilities(home.package, WORDS)).all()
        assert client.get_registered_model("earlier")


# ── where it is loaded ──────────────────────────────────────────────────────────────────────────────────────────────

ASK = """
import json, sys
from mlflow import pyfunc
model = pyfunc.load_model("models:/tiny@champion", model_config=json.loads(sys.argv[1]))
answers = model.predict(json.loads(sys.argv[2]))
import stages.common.serving.answers as code
print(json.dumps([list(answers["score"].astype(float)), code.__file__, sorted(sys.modules)]))
"""


def ask_elsewhere(home: Home, folder: Path, variant: Variant, **environment: str) -> tuple[list[float], Path, set[str]]:
    """Ask from a process of its own: the scores, where its code came from, and what it imported."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    uri = f"sqlite:///{home.root / 'mlflow.db'}"
    command = [sys.executable, "-c", ASK, json.dumps({"variant": variant, "threads": 1}), json.dumps(WORDS)]
    environment = {**inherited, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found, code, modules = json.loads(done.stdout.strip().split("\n")[-1])
    return found, Path(code), set(modules)


def test_onnx_is_served_without_torch_and_without_the_checkout(home: Home, tmp_path: Path) -> None:
    found, code, modules = ask_elsewhere(home, tmp_path, "int8")
    expected = Classifier(home.package, "int8", threads=1).probabilities(WORDS).max(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert PROJECT not in code.parents
    assert modules & {"torch", "transformers"} == set()


def test_torch_is_served_by_the_packaged_code_in_the_middle_of_the_checkout(home: Home) -> None:
    found, code, modules = ask_elsewhere(home, PROJECT, "torch", PYTHONPATH=str(PROJECT))
    np.testing.assert_allclose(found, scores(home.package), atol=1e-5)
    assert PROJECT not in code.parents
    assert "onnxruntime" not in modules


def test_code_that_was_imported_before_answers_with_a_warning(home: Home) -> None:
    with pytest.warns(UserWarning, match="not the model's own"):
        mlflow.pyfunc.load_model("models:/tiny@champion", model_config={"threads": 1})


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
        {"labels": ["a", "b"], "temperature": 0},
        {"labels": ["a", "b"], "temperature": float("nan")},
        {"labels": ["a"]},
        {"labels": ["a", "a"]},
        {"labels": ["a", "b"], "thresholds": {"c": 0.5}},
        {"labels": ["a", "b"], "thresholds": {"a": None}},
        {"labels": ["a", "b"], "other": 1},
        {},
    ],
)
def test_a_decision_that_would_turn_answers_round_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "decision.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="is not what it should be"):
        Decision.read(tmp_path)


def test_a_decision_of_another_model_is_refused(home: Home, tmp_path: Path) -> None:
    Decision(list(reversed(LABELS))).write(tmp_path)
    with pytest.raises(ValueError, match="other labels"):
        Classifier(replace(home.package, serving=tmp_path), "onnx")
