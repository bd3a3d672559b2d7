"""Forms of the model that serve faster: the same answers, the same bytes, and a reason for each that is not offered."""

import json
import re
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from stages.common.digests import sha256_file, sha256_path
from stages.common.params import ExportParams
from stages.common.pipeline.graph import read_graph
from stages.common.schemas import CleanRecords
from stages.export.__main__ import NOT_ASKED, _write
from stages.export.files import NotExported, write_int8, write_onnx
from stages.export.verdict import compare, judge
from stages.finetune.strategies import prepare, save
from stages.serving.backends import Classifier, Package
from stages.tasks.text_classification import build_model
from stages.tracking import publish
from tests.models import FILLER, LONGEST, TELLING, outspoken, put_tokenizer, settings
from tests.projects import TINY, Project
from tests.unit.small_records import make_records

LABELS = ["bad", "good"]
TEXTS = [" ".join([*FILLER[: at % 5], word]) for at, word in enumerate(w for ws in TELLING.values() for w in ws)]

pytestmark = pytest.mark.usefixtures("one_thread")


def make_model(base: Path, folder: Path, **finetune: Any) -> Path:
    """A model that was not trained, but whose answers differ from text to text; with an adapter if asked for one."""
    network = build_model(base, LABELS, 0.0, seed=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    outspoken(network, tokenizer, TEXTS)
    if finetune:
        params = settings(**finetune)
        network = prepare(network, params, LONGEST)
        with torch.no_grad():  # an adapter that does something
            for name, weight in network.named_parameters():
                if "lora_B" in name:
                    weight.fill_(0.05)
        save(network, params, folder / "finetuned")
    else:
        network.save_pretrained(folder / "finetuned")
    return put_tokenizer(base, folder / "finetuned")


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model, and its forms."""
    folder = tmp_path_factory.mktemp("home")
    return exported(make_model(base, folder), folder / "exported")


def exported(model: Path, folder: Path) -> Package:
    write_onnx(model, folder / "model.onnx")
    write_int8(folder / "model.onnx", folder / "int8.onnx")
    return Package(model, folder)


def answers_of(package: Package, pairs: list[str] | None = None, batch_size: int = 64) -> dict[str, np.ndarray]:
    return {
        variant: Classifier(package, variant, threads=1).probabilities(TEXTS, pairs, batch_size)
        for variant in package.variants
    }


@pytest.mark.parametrize(("pairs", "batch_size"), [(None, 1), ([*reversed(TEXTS)], 5)])
def test_onnx_answers_as_the_original_does(home: Package, pairs: list[str] | None, batch_size: int) -> None:
    answers = answers_of(home, pairs, batch_size)
    assert np.ptp(answers["torch"][:, 0]) > 0.1
    np.testing.assert_allclose(answers["onnx"], answers["torch"], atol=1e-4)
    assert (answers["onnx"] != answers["int8"]).any()
    np.testing.assert_allclose(answers["int8"], answers["torch"], atol=0.4)


def test_the_same_model_gives_the_same_bytes(home: Package, tmp_path: Path) -> None:
    assert sha256_path(exported(home.model, tmp_path).exported) == sha256_path(home.exported)


@pytest.mark.parametrize("name", ["model.onnx", "int8.onnx"])
def test_a_file_tells_nothing_of_the_machine_that_wrote_it(home: Package, name: str) -> None:
    content = (home.exported / name).read_bytes()
    for mark in (str(home.model.parent), str(Path.home()), socket.gethostname(), "site-packages", ".py", "File "):
        assert mark.encode() not in content
    onnx.checker.check_model(str(home.exported / name))


def test_int8_is_smaller(home: Package) -> None:
    assert (home.exported / "int8.onnx").stat().st_size < (home.exported / "model.onnx").stat().st_size
    quantized = onnx.load(home.exported / "int8.onnx")
    weights = {weight.name: weight for weight in quantized.graph.initializer}
    products = [weights[node.input[1]] for node in quantized.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 6 * TINY["num_hidden_layers"] + 2  # six in a layer, pooler and head
    assert {weight.data_type for weight in products} == {onnx.TensorProto.INT8}
    scales = [weight for name, weight in weights.items() if name.endswith("_scale") and weight.dims == [16]]
    assert len(scales) >= 6  # one for each output


def test_an_adapter_beside_the_weights_is_merged(base: Path, tmp_path: Path) -> None:
    model = make_model(base, tmp_path, strategy="lora", merge_adapter=False)
    assert (model / "adapter_config.json").exists()
    answers = answers_of(exported(model, tmp_path / "exported"))
    np.testing.assert_allclose(answers["onnx"], answers["torch"], atol=1e-4)


def test_a_decoder_whose_tokenizer_gives_more_than_it_takes_is_written_too(base: Path, tmp_path: Path) -> None:
    shape = {"vocab_size": 200, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    network = LlamaForSequenceClassification(LlamaConfig(**shape, **heads, pad_token_id=0, num_labels=2))
    with torch.no_grad():
        network.score.weight.mul_(20)
    network.save_pretrained(tmp_path / "model")
    put_tokenizer(base, tmp_path / "model")
    answers = answers_of(exported(tmp_path / "model", tmp_path))
    assert np.ptp(answers["torch"][:, 0]) > 0.1
    np.testing.assert_allclose(answers["onnx"], answers["torch"], atol=1e-4)
    np.testing.assert_allclose(answers["int8"], answers["torch"], atol=0.1)


def test_a_model_that_torch_cannot_write_says_so(
    home: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("stages.export.files.MOST_BYTES", 1000)
        with pytest.raises(NotExported, match="over 2 GiB"):
            write_onnx(home.model, tmp_path / "model.onnx")

    monkeypatch.setattr(torch.onnx, "export", Mock(side_effect=RuntimeError(f"no such operator, seen in {tmp_path}")))
    with pytest.raises(NotExported) as told:
        write_onnx(home.model, tmp_path / "model.onnx")
    assert str(told.value) == "torch cannot write BertForSequenceClassification as ONNX (RuntimeError)"
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_that_cannot_be_quantized_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(NotExported, match="onnxruntime cannot quantize this model"):
        write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_differences_are_counted_in_rows_of_the_test_split() -> None:
    original = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    other = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    expected = {"accuracy": 0.5, "accuracy_change": -0.25, "agreement": 0.75, "largest_difference": 0.2}
    assert compare(original, other, np.array([0, 0, 1, 0])) == expected


@pytest.mark.parametrize(
    ("name", "change", "agreement", "faster", "offered", "reason"),
    [
        ("int8", -0.003, 0.9, True, True, "accuracy falls by 0.0030, and it is faster than the original"),
        ("int8", 0.0, 1.0, True, True, "the same accuracy, and it is faster than the original"),
        ("int8", -0.0031, 0.9, True, False, "accuracy falls by 0.0031, more than the 0.003 of export.allowed_drop"),
        ("int8", 0.0, 0.9, False, False, "it is no faster than the original for one text"),
        ("onnx", 0.0, 0.999, False, True, "99.90% of the test rows get the same label as from the original"),
        ("onnx", 0.0, 0.998, True, False, "99.80% of the test rows get the same label as from the original, fewer"),
    ],
)
def test_a_form_is_offered_if_it_is_good_enough(
    name: str, change: float, agreement: float, faster: bool, offered: bool, reason: str
) -> None:
    scores = {"accuracy": 0.8, "accuracy_change": change, "agreement": agreement, "largest_difference": 0.1}
    form = judge(name, 1000, scores, faster, 0.003)
    assert (form.offered, form.faster, form.bytes, form.accuracy_change) == (offered, faster, 1000, change)
    assert form.reason.startswith(reason)


def test_costs_are_metrics_of_the_models_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: dict[str, float] = {}

    class Run:
        node, staging, all_params = read_graph()["export"], project.root, None

    monkeypatch.setattr(publish, "connect", lambda: None)
    monkeypatch.setattr(publish, "publish_run", lambda *_: "a run")
    monkeypatch.setattr(publish, "record_metrics", lambda client, run_id, metrics: recorded.update(metrics))
    publish.publish_live(Run(), project.root, costs={"int8_p50_ms_batch_1": 2.5})  # type: ignore[arg-type]
    assert recorded == {"cost_int8_p50_ms_batch_1": 2.5}


def put_inputs(project: Project, model: Path) -> None:
    """Put a model and a test split of pairs into a project."""
    (project.root / "models").mkdir()
    (project.root / "models" / "finetuned").symlink_to(model)
    pairs = [*reversed(TEXTS[1:]), None]
    rows = [
        {"id": str(at), "text": text, "text_pair": pair, "label": LABELS[at % 2]}
        for at, (text, pair) in enumerate(zip(TEXTS, pairs, strict=True))
    ]
    table = make_records(rows).with_columns(fold=pl.lit(None, pl.Int16))
    CleanRecords.write(table, project.root / "data/clean/test.parquet")


def test_the_stage_keeps_what_is_as_good_and_reports_no_times(project: Project, home: Package) -> None:
    put_inputs(project, home.model)
    done = project.python("-m", "stages.export", MLFLOW_TRACKING_URI="http://127.0.0.1:9", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1:9" in done.stderr  # the tracking server is away: a warning, and no more
    report = json.loads((project.root / "reports/export.json").read_text())
    files = sorted(path.name for path in (project.root / "models/exported").iterdir())
    assert list(report) == ["model", "onnx", "int8"]
    assert report["model"] == sha256_path(project.root / "models/finetuned")
    assert report["onnx"]["sha256"] == sha256_file(project.root / "models/exported/model.onnx")
    full, int8 = report["onnx"], report["int8"]
    assert (full["offered"], full["agreement"]) == (True, 1.0) and full["largest_difference"] < 1e-3
    sizes = [(home.exported / name).stat().st_size for name in ("model.onnx", "int8.onnx")]
    assert [full["bytes"], int8["bytes"]] == sizes
    assert isinstance(int8["faster"], bool)
    assert files == [*(["int8.onnx"] if int8["offered"] else []), "model.onnx"]
    assert sha256_file(project.root / "models/exported/model.onnx") == sha256_file(home.exported / "model.onnx")
    assert not re.search(r"ms|second|p50", (project.root / "reports/export.json").read_text())
    costs = json.loads((project.root / "logs/cost.json").read_text())
    assert {f"{name}_p95_ms_batch_{texts}" for name in ("torch", "onnx", "int8") for texts in (1, 32)} <= set(costs)
    assert costs["onnx_file_mib"] > costs["int8_file_mib"] > 0
    assert f"{costs['parameters']:,} parameters" in done.stdout


def test_nothing_is_written_that_was_not_asked_for(home: Package, tmp_path: Path) -> None:
    neither = ExportParams(onnx=False, int8=False)
    assert _write(neither, home.model, tmp_path / "none") == dict.fromkeys(("onnx", "int8"), NOT_ASKED)
    assert list((tmp_path / "none").iterdir()) == []  # but the folder is there, for DVC
    assert _write(ExportParams(int8=False), home.model, tmp_path) == {"int8": NOT_ASKED}
    assert (tmp_path / "model.onnx").exists()
    assert not (tmp_path / "int8.onnx").exists()


def test_a_prefix_is_left_to_torch(base: Path, tmp_path: Path) -> None:
    model = make_model(base, tmp_path, strategy="prefix", prefix={"num_virtual_tokens": 4})
    forms = _write(ExportParams(), model, tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []
    assert forms["onnx"].reason == "a model with prefix_tuning cannot be merged into one graph: torch serves it"
    assert forms["int8"].reason == "there is no ONNX model to make it of"
