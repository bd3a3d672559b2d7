"""Variants of the model that serve faster: the same answers and bytes, and a reason for each that is not offered."""

import json
import re
import shutil
import socket
from itertools import chain
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from stages.common.digests import sha256_file, sha256_path
from stages.common.params import ExportParams
from stages.common.params.tasks import Score
from stages.common.schemas import CleanRecords, Rejected
from stages.export.__main__ import NOT_ASKED, write_variants
from stages.export.comparison import compare, judge
from stages.export.conversion import write_int8, write_onnx
from stages.finetune.strategies import prepare, save
from stages.serving.backends import FILES, Package, Predictor
from stages.tasks.inference import size_of
from tests.models import FILLER, LONGEST, TELLING, build_model, outspoken, put_tokenizer, settings
from tests.projects import TINY, Project
from tests.unit.small_records import make_records

LABELS = ["bad", "good"]
ACCURACY = Score("accuracy", "accuracy")
SAME = "of the test rows get the same prediction as from the original"
TEXTS = [" ".join([*FILLER[: number % 5], word]) for number, word in enumerate(chain(*TELLING.values()))]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A model with an adapter beside its weights and answers that differ from text to text, and its variants."""
    folder, params = tmp_path_factory.mktemp("home"), settings(strategy="lora", merge_adapter=False)
    network = build_model(base, LABELS, 0.0, seed=1)
    outspoken(network, AutoTokenizer.from_pretrained(base), TEXTS)
    network = prepare(network, params, LONGEST)
    with torch.no_grad():  # an adapter that does something
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.05)
    save(network, params, folder / "finetuned")
    assert (folder / "finetuned/adapter_config.json").exists()
    return exported(put_tokenizer(base, folder / "finetuned"), folder / "exported")


def exported(model: Path, folder: Path) -> Package:
    folder.mkdir(exist_ok=True)
    write_onnx(model, folder / "model.onnx")
    write_int8(folder / "model.onnx", folder / "int8.onnx")
    return Package(model, folder)


def answers_of(package: Package, pairs: list[str] | None = None, batch_size: int = 64) -> dict[str, np.ndarray]:
    return {
        variant: Predictor(package, variant, threads=1).outputs(TEXTS, pairs, batch_size)
        for variant in package.variants
    }


@pytest.mark.parametrize(("pairs", "batch_size"), [(None, 1), ([*reversed(TEXTS)], 5)])
def test_onnx_answers_as_the_original_does(home: Package, pairs: list[str] | None, batch_size: int) -> None:
    answers = answers_of(home, pairs, batch_size)
    assert np.ptp(answers["torch"][:, 0]) > 0.1
    np.testing.assert_allclose(answers["onnx"], answers["torch"], atol=1e-4)
    assert (answers["onnx"] != answers["int8"]).any()
    np.testing.assert_allclose(answers["int8"], answers["torch"], atol=0.4)


@pytest.mark.parametrize("name", ["model.onnx", "int8.onnx"])
def test_a_file_holds_nothing_of_the_machine_that_wrote_it(home: Package, name: str) -> None:
    content = (home.exported / name).read_bytes()
    for mark in (str(home.model.parent), str(Path.home()), socket.gethostname(), "site-packages", ".py", "File "):
        assert mark.encode() not in content
    onnx.checker.check_model(str(home.exported / name))


def test_int8_has_weights_of_eight_bits_in_every_layer(home: Package) -> None:
    weights = onnx.load(home.exported / "int8.onnx").graph.initializer
    signed = [weight.name for weight in weights if weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) == 2]
    assert len(signed) >= 6 * TINY["num_hidden_layers"] + 2  # six in a layer, pooler and head


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


def test_a_model_that_cannot_be_written_or_quantized_says_so(
    home: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", Mock(side_effect=RuntimeError(f"no such operator, seen in {tmp_path}")))
    reason = write_onnx(home.model, tmp_path / "model.onnx")
    assert reason == "torch cannot write BertForSequenceClassification as ONNX (RuntimeError)"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model.onnx").write_bytes(b"no model")
    reason = write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert reason and reason.startswith("onnxruntime cannot quantize this model")
    assert not (tmp_path / "int8.onnx").exists()


def test_differences_are_counted_in_rows_of_the_test_split(home: Package) -> None:
    test = pl.DataFrame({"label": ["bad", "bad", "good", "bad"]})
    original = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    other = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    expected = {"score": 0.5, "score_change": -0.25, "agreement": 0.75, "largest_difference": 0.2}
    assert compare(Predictor(home, "torch"), test, original, other, ACCURACY) == expected


@pytest.mark.parametrize(
    ("name", "change", "agreement", "faster", "offered", "reason"),
    [
        ("int8", -0.003, 0.9, True, True, "accuracy falls by 0.0030, and it is faster than the original"),
        ("int8", 0.0, 1.0, True, True, "the same accuracy, and it is faster than the original"),
        ("int8", -0.0031, 0.9, True, False, "accuracy falls by 0.0031, more than the 0.003 of export.allowed_drop"),
        ("int8", 0.0, 0.9, False, False, "it is no faster than the original for one text"),
        ("int8 error", 0.0031, 0.9, True, False, "error rises by 0.0031 (0.4%), more than the 0.003 of export.allowed"),
        ("int8 error", 0.0023, 0.9, True, True, "error rises by 0.0023 (0.3%), and it is faster than the original"),
        ("int8 error", -0.1, 0.9, True, True, "error falls by 0.1000 (11.1%), and it is faster than the original"),
        ("bf16", -0.003, 0.9, False, True, "accuracy falls by 0.0030, and it is smaller than the original"),
        ("bf16", -0.0031, 0.9, True, False, "accuracy falls by 0.0031, more than the 0.003 of export.allowed_drop"),
        ("onnx", 0.0, 0.999, False, True, f"99.90% {SAME}"),
        ("onnx", 0.0, 0.998, True, False, f"99.80% {SAME}, fewer"),
    ],
)
def test_a_variant_is_offered_if_it_is_good_enough(
    name: str, change: float, agreement: float, faster: bool, offered: bool, reason: str
) -> None:
    name, _, error = name.partition(" ")
    main = Score("error", "error", greater_is_better=False, unbounded=True) if error else ACCURACY
    scores = {"score": 0.8, "score_change": change, "agreement": agreement, "largest_difference": 0.1}
    report = judge(name, 1000, scores, faster, 0.003, main)
    assert (report.offered, report.faster, report.bytes, report.score_change) == (offered, faster, 1000, change)
    assert report.reason.startswith(reason)


def test_the_stage_keeps_what_is_as_good_and_reports_no_times(project: Project, home: Package) -> None:
    root = project.root
    (root / "models").mkdir()
    (root / "models/finetuned").symlink_to(home.model)
    rows = [
        {"id": str(number), "text": text, "text_pair": pair, "label": LABELS[number % 2]}
        for number, (text, pair) in enumerate(zip(TEXTS, [*reversed(TEXTS[1:]), None], strict=True))
    ]
    Rejected.write(Rejected.empty(), root / "data/tokenized/rejected.parquet")
    CleanRecords.write(make_records(rows).with_columns(fold=pl.lit(None, pl.Int16)), root / "data/clean/test.parquet")
    command = ("python", "-m", "stages.export")
    done = project.run(*command, MLFLOW_TRACKING_URI="http://127.0.0.1:9", OMP_NUM_THREADS="1")
    assert "127.0.0.1:9" in done.stderr  # the tracking server is away: a warning, and no more
    report = json.loads((root / "reports/export.json").read_text())
    assert list(report) == ["model", "onnx", "int8", "bf16"]
    assert report["model"] == sha256_path(root / "models/finetuned")
    assert report["onnx"]["agreement"] == 1.0 and report["onnx"]["largest_difference"] < 1e-3
    files = {path.name: sha256_file(path) for path in (root / "models/exported").iterdir()}
    assert report["bf16"]["reason"] == NOT_ASKED
    for name, file in [*FILES.items()][:2]:
        digest = sha256_file(home.exported / file)  # the same model gives the same bytes, in another process too
        assert report[name]["sha256"] == files.get(file) == (digest if report[name]["offered"] else None)
        assert report[name]["bytes"] == (home.exported / file).stat().st_size
    assert not re.search(r"_ms|second|p50", (root / "reports/export.json").read_text())
    costs = json.loads((root / "logs/cost.json").read_text())
    assert {f"{name}_p95_ms_batch_{texts}" for name in ("torch", "onnx", "int8") for texts in (1, 32)} <= set(costs)
    assert costs["onnx_file_mib"] > costs["int8_file_mib"] > 0
    assert f"{costs['parameters']:,} parameters" in done.stdout


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.export.conversion.write_onnx", lambda model, file: file.touch())
    neither = ExportParams(onnx=False, int8=False)
    assert write_variants(neither, tmp_path, tmp_path / "none") == dict.fromkeys(FILES, NOT_ASKED)
    assert list((tmp_path / "none").iterdir()) == []  # but the folder is there, for DVC
    only = write_variants(ExportParams(int8=False), tmp_path, tmp_path / "onnx")
    assert only == dict.fromkeys(("int8", "bf16"), NOT_ASKED)
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]


def test_a_prefix_is_left_to_torch(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}')
    reports = write_variants(ExportParams(bf16=True), tmp_path, tmp_path / "exported")
    assert list((tmp_path / "exported").iterdir()) == []
    assert reports == {
        "onnx": "a model with prefix_tuning cannot be merged into one graph: torch serves it",
        "int8": "there is no ONNX model to make it of",
        "bf16": "its adapter is kept beside the weights: set finetune.merge_adapter: true",
    }


def test_weights_of_16_bits_are_half_as_large_load_elsewhere_and_answer_nearly_alike(
    base: Path, tmp_path: Path
) -> None:
    network = build_model(base, LABELS, 0.0, seed=1)
    outspoken(network, AutoTokenizer.from_pretrained(base), TEXTS)
    network.save_pretrained(tmp_path / "model")
    model, folder = put_tokenizer(base, tmp_path / "model"), tmp_path / "exported"
    params = ExportParams(onnx=False, int8=False, bf16=True)
    assert "bf16" not in write_variants(params, model, folder)
    first = sha256_path(folder / "bf16")
    shutil.rmtree(folder)
    write_variants(params, model, folder)
    assert sha256_path(folder / "bf16") == first
    assert size_of(model)["bytes"] > 1.8 * size_of(folder / "bf16")["bytes"]
    elsewhere = AutoModelForSequenceClassification.from_pretrained(folder / "bf16")
    assert elsewhere.dtype == torch.bfloat16 and AutoTokenizer.from_pretrained(folder / "bf16")
    answers = answers_of(Package(model, folder))
    assert set(answers) == {"torch", "bf16"} and (answers["torch"] != answers["bf16"]).any()
    np.testing.assert_allclose(answers["bf16"], answers["torch"], atol=0.05)
