"""What augmentation needs besides the texts: WordNet's files and models by allow-lists, with their hashes told."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from small_project import Project

from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.ingest.expansion import Workspace
from stages.ingest.resources import bring_resources

PutWheel = Any
WEIGHTS = save({"weights": np.zeros(2, dtype=np.float32)})
PARTS = ("noun", "verb", "adj", "adv")
NAMES = [*(f"{kind}.{part}" for kind in ("data", "index") for part in PARTS), *(f"{part}.exc" for part in PARTS)]
DICT = dict.fromkeys([*NAMES, "cntlist.rev"], b"  1 This software and database\n")
MARIAN = {
    "config.json": b'{"model_type": "marian"}',
    "generation_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "source.spm": b"pieces",
    "target.spm": b"pieces",
    "vocab.json": b"{}",
}
BERT = {"config.json": b'{"model_type": "bert"}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
# the head of a CTranslate2 model: version, length and name of the model's spec
SPEC = b"TransformerSpec\0"
CTRANSLATE2 = {
    "config.json": b'{"add_source_eos": true}',
    "model.bin": struct.pack("<IH", 6, len(SPEC)) + SPEC + bytes(100),
    "shared_vocabulary.json": b"[]",
    "source.spm": b"pieces",
    "target.spm": b"pieces",
}


def put(project: Project, name: str, files: dict[str, bytes]) -> FolderSource:
    for file, content in files.items():
        project.file(f"data/inbox/{name}/{file}", content)
    return FolderSource(path=f"data/inbox/{name}")


def bring(project: Project, **named: FolderSource) -> dict[str, dict[str, bytes]]:
    """What is in each folder afterwards."""
    target = project.root / "models/resources"
    bring_resources(named, target, Workspace(project.root / "downloads", project.root))
    folders = [folder for folder in target.iterdir() if folder.is_dir()]
    return {folder.name: {file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders}


def test_every_resource_comes_into_a_folder_of_its_name_with_hashes(project: Project, put_wheel: PutWheel) -> None:
    put_wheel("translator==1.0", {f"pkg/model/{name}": content for name, content in MARIAN.items()})
    named = {
        "wordnet": put(project, "dict", {**DICT, "LICENSE": b"free", "lexnames": b"", "index.sense": b""}),
        "masked_lm": put(project, "bert", BERT),
        "translation_forward": FolderSource(wheel="translator==1.0", member="pkg/model"),
        "translation_back": put(project, "back", CTRANSLATE2),
    }
    found = bring(project, **named)
    assert found["masked_lm"] == BERT
    assert found["translation_forward"] == MARIAN
    assert found["translation_back"] == CTRANSLATE2
    assert set(found["wordnet"]) == {*DICT, "LICENSE", "lexnames", "index.sense"}
    report = json.loads((project.root / "models/resources/resources.json").read_text())
    assert {name: entry["origin"] for name, entry in report.items()} == {
        name: source.origin for name, source in named.items()
    }
    for name, files in found.items():
        assert report[name]["sha256"] == {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}


def test_nothing_else_is_copied(project: Project) -> None:
    unwanted = {"pytorch_model.bin": b"pickle", "run.py": b"exit()", "deep/config.json": b"{}", "model.onnx": b"x"}
    found = bring(
        project,
        wordnet=put(project, "dict", {**DICT, **unwanted, "wordnet.so": b"x", "data.noun.py": b"x"}),
        translation_forward=put(project, "there", {**MARIAN, **unwanted, "model.bin": b"\x80\x04pickle"}),
    )
    assert set(found["wordnet"]) == set(DICT)
    assert found["translation_forward"] == MARIAN


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("wordnet", {"data.noun": b""}, "no WordNet there: data.verb, data.adj, data.adv, index.noun"),
        ("masked_lm", {**BERT, "config.json": b'{"model_type": "marian"}'}, "knows no masked language model"),
        ("translation_back", {**MARIAN, "config.json": b'{"model_type": "bert"}'}, "knows no translation model"),
        ("translation_back", {**CTRANSLATE2, "config.json": b'{"auto_map": {}}'}, "asks for code of its own"),
        ("translation_back", {**MARIAN, "config.json": b'{"auto_map": {}}'}, "asks for code of its own"),
        ("translation_back", {"config.json": b"{}", "model.safetensors": WEIGHTS}, "no tokenizer there"),
        ("masked_lm", {**BERT, "model.safetensors": b"\xff" * 64}, "model.safetensors is damaged"),
    ],
)
def test_what_its_use_could_not_take_is_refused_now(
    project: Project, name: str, files: dict[str, bytes], told: str
) -> None:
    with pytest.raises(AttuneError, match=told):
        bring(project, **{name: put(project, "it", files)})


def test_a_wheel_that_expands_too_far_is_refused(project: Project, put_wheel: PutWheel, tmp_path: Path) -> None:
    put_wheel("pkg==1.0", {f"dict/{name}": bytes(1 << 20) for name in DICT})
    source = FolderSource(wheel="pkg==1.0", member="dict")
    with pytest.raises(AttuneError, match="unpacks to more than 2 MiB"):
        workspace = Workspace(tmp_path / "downloads", tmp_path, max_expanded_mb=2)
        bring_resources({"wordnet": source}, tmp_path / "out", workspace)
