"""A tiny model with all its parts, registered as MLflow serves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import polars as pl
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoTokenizer

from stages.common.digests import sha256_path
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.common.text.cleaning import TextCleaning
from stages.export.conversion import write_int8, write_onnx
from stages.serving.backends import FILES, Package
from stages.tasks.inference import load_classifier
from stages.tracking import store
from stages.tracking.package import SEEN_FILES, package_digest
from stages.tracking.registry import Registration, ensure_registered
from stages.tracking.runs import MODEL_TAG, create_run
from tests.models import build_model, make_base, outspoken, put_tokenizer
from tests.projects import params_of, without_mlflow
from tests.unit.small_decisions import label_decision

LABELS = ["bad", "good", "odd"]
WORDS = [f"{start}{end}" for start in ("ba", "do", "mi", "ru") for end in ("lo", "ka", "ni", "pe")]
LONGEST = 16  # tokens
THRESHOLD = 0.5
DIRTY, CLEANED = "<br />ba&#108;o\u200bka \u201cdo&amp;ni\u201d  rupe", 'baloka "do&ni" rupe'


def make_package(folder: Path) -> Package:
    """Write an untrained model whose answers differ much from text to text, its ONNX files and its decision."""
    base, model, exported, serving = (folder / name for name in ("base", "model", "exported", "serving"))
    make_base(base, texts=[" ".join(WORDS)] * 3)
    network = build_model(base, LABELS, None, seed=2).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    outspoken(network, tokenizer, WORDS)
    network.save_pretrained(model)
    put_tokenizer(base, model, LONGEST)
    exported.mkdir()
    write_onnx(model, exported / FILES["onnx"])
    write_int8(exported / FILES["onnx"], exported / FILES["int8"])
    label_decision(LABELS, 1.5, dict.fromkeys(LABELS, THRESHOLD)).write(serving)
    (serving / TEXT_CLEANING).write_text(TextCleaning().as_text())
    return Package(model, exported, serving)


def probabilities(package: Package, texts: list[str], pairs: list[str] | None = None) -> np.ndarray:
    """Return what transformers and torch say of each text on its own, calibrated, [n x k]."""
    tokenizer, network = AutoTokenizer.from_pretrained(package.model), load_classifier(package.model)
    rows = []
    for index, text in enumerate(texts):
        tokens = tokenizer(text, pairs[index] if pairs else None, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            rows.append((network(**tokens).logits[0].double() / 1.5).softmax(-1).numpy())
    return np.array(rows)


@contextmanager
def working_in(folder: Path) -> Iterator[MlflowClient]:
    """Work in a folder with a store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        without_mlflow(patch)
        patch.chdir(folder)
        for path in SEEN_FILES:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"id": ["row"]}).write_parquet(path)
        before = mlflow.get_tracking_uri()
        yield store.connect()
    mlflow.set_tracking_uri(before)


def register(client: MlflowClient, package: Package, name: str = "tiny", **sections: Any) -> int:
    """Make a package champion of its name; return its version."""
    digest = sha256_path(package.model)
    card = Path("model_card.md")
    card.write_text("# tiny\n")
    run_id = create_run(client, params_of(register={"model_name": name}, **sections), {MODEL_TAG: digest})
    registration = Registration(name, digest, package_digest(package), True, [])
    return ensure_registered(client, registration, run_id, package, card).version
