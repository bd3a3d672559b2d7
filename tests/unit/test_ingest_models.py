"""Models and what augmentation needs: known kinds of files only, safetensors, never code; or one built here."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, FolderSource
from stages.common.params.ingest import Scratch
from stages.ingest.archives import Workspace
from stages.ingest.models import WORDNET_NEEDED, bring_model, bring_resources
from stages.ingest.scratch import build_scratch_model
from tests.projects import TINY, Project
from tests.unit.small_records import CONFIG, MODEL
from tests.unit.small_records import WEIGHTS as TENSORS

PutWheel = Any
Files = dict[str, bytes]
WEIGHTS = MODEL["model.safetensors"]
UNWANTED = dict.fromkeys(
    ["pytorch_model.bin", "evil.py", "model.onnx", "model.safetensors.py", "deep/config.json"], b"x"
)
DICT = dict.fromkeys(WORDNET_NEEDED, b"  1 This software and database\n")
MARIAN = {
    "config.json": b'{"model_type": "marian"}',
    "generation_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "source.spm": b"pieces",
    "target.spm": b"pieces",
    "vocab.json": b"{}",
}


def contents(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def put(project: Project, name: str, files: Files) -> str:
    for file, content in files.items():
        project.file(f"data/inbox/{name}/{file}", content)
    return f"data/inbox/{name}"


def bring(project: Project, **source: Any) -> Files:
    """The files of a base model afterwards."""
    target = project.root / "models/base"
    bring_model(BaseModelSource(**source), target, Workspace(project.root / "downloads", project.root))
    return contents(target)


def bring_named(project: Project, **named: FolderSource) -> dict[str, Files]:
    """The files of each resource afterwards."""
    target = project.root / "models/resources"
    bring_resources(named, target, Workspace(project.root / "downloads", project.root))
    return {folder.name: contents(folder) for folder in target.iterdir() if folder.is_dir()}


def test_only_files_of_known_kinds_are_copied_from_a_folder(project: Project) -> None:
    files = {name: content for name, content in MODEL.items() if name != "model.safetensors"}
    files |= {"model-1-of-1.safetensors": WEIGHTS, INDEX: index("model-1-of-1.safetensors")}  # weights in parts
    assert bring(project, path=put(project, "model", {**files, **UNWANTED})) == files


def test_a_model_with_a_head_and_names_as_older_files_have_them_is_taken(project: Project) -> None:
    head = {"classifier.weight": np.ones((2, 4), np.float32), "bert.pooler.dense.bias": np.ones(4, np.float32)}
    older = {"weight": "gamma", "bias": "beta"}
    named = {f"bert.{name}": values for name, values in TENSORS.items() if "LayerNorm" not in name}
    named |= {f"bert.embeddings.LayerNorm.{name}": np.ones(4, np.float32) for name in older.values()}
    files = {**MODEL, "model.safetensors": save({**named, **head})}
    assert bring(project, path=put(project, "model", files)) == files


WORDS = "embeddings.word_embeddings.weight"
TOO_MANY = MODEL["tokenizer.json"].replace(b'"film":5', b'"film":5,"plot":6')
INDEX = "model.safetensors.index.json"
ASKING = json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}).encode()
NESTED = json.dumps({"model_type": "bert", "text_config": [{"auto_map": {"AutoModel": "evil.Model"}}]}).encode()


def index(*files: str) -> bytes:
    parts = {f"weight{number}": file for number, file in enumerate(files)}
    return json.dumps({"metadata": {}, "weight_map": parts}).encode()


def weights(**changed: tuple[int, ...] | None) -> bytes:
    """The weights of the model, with other shapes for some, or without them."""
    shapes = {**{name: values.shape for name, values in TENSORS.items()}, **changed}
    return save({name: np.ones(shape, np.float32) for name, shape in shapes.items() if shape})


def config(**changed: Any) -> bytes:
    return json.dumps({**CONFIG, **changed}).encode()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, r"(?s)no model there.*bin files must be converted"),
        ({"config.json": None}, "no model there: it needs config.json"),
        (
            {"tokenizer.json": None},
            r"it needs config.json, a .safetensors file and a tokenizer \(one of tokenizer.json",
        ),
        ({"config.json": ASKING}, r" config.json asks for code of its own \(auto_map\), which is never run"),
        ({"tokenizer_config.json": ASKING}, "tokenizer_config.json asks for code of its own"),
        ({"config.json": b"{"}, "config.json cannot be loaded"),
        ({"config.json": b'{"model_type": "nonesuch"}'}, "model type `nonesuch`"),
        ({"config.json": b'{"model_type": ["bert"]}'}, "config.json cannot be loaded"),
        (
            {"config.json": b'{"model_type": "clip"}'},
            "model_type 'clip', of which transformers knows no text classifier",
        ),
        ({"config.json": b'{"a":' * 100_000}, "config.json cannot be loaded"),
        ({"config.json": config(hidden_size="wide")}, "config.json cannot be loaded"),
        ({"config.json": NESTED}, " config.json asks for code of its own"),
        ({"tokenizer.json": b"[1]"}, "the tokenizer cannot be loaded"),
        ({"tokenizer.json": b'{"model": 1}'}, "the tokenizer cannot be loaded"),
        ({"model.safetensors": b"\xff" * 64}, "the model cannot be loaded"),
        (
            {
                "model.safetensors": None,
                "model-1-of-2.safetensors": WEIGHTS,
                INDEX: index("model-1-of-2.safetensors", "b"),
            },
            "the model cannot be loaded",
        ),
        ({"model.safetensors": save({"x": np.ones(2)})}, r"one model: 5 of 5 weights .* not there: embeddings.Layer"),
        ({"model.safetensors": weights(**{f"{WORDS}": (7, 4)})}, rf"{WORDS} is \[7, 4\], and \[6, 4\] by config.json"),
        ({"model.safetensors": weights(**{f"{WORDS}": None})}, f"1 of 5 weights of the encoder are not there: {WORDS}"),
        ({"config.json": config(num_hidden_layers=1)}, "16 of 21 weights of the encoder"),
        ({"tokenizer.json": TOO_MANY}, "the tokenizer has the id 6, and the model has 6 entries"),
    ],
)
def test_a_model_that_could_not_be_loaded_later_is_refused_now(
    project: Project, changed: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in {**MODEL, **changed}.items() if content is not None}
    with pytest.raises(AttuneError, match=message):
        bring(project, path=put(project, "model", files))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "data/inbox/nothing"}, "data/inbox/nothing: no such folder"),
        ({"path": "data/inbox/model", "sha256": {"config.json": "0" * 64}}, "config.json: its content is not what"),
        ({"path": "data/inbox/model", "sha256": {"a.bin": "0" * 64}}, r"has no file 'a.bin' to check\n.*config"),
        ({"wheel": "pkg==1.0", "member": "pkg"}, r"pkg==1.0:pkg: the archive holds no file.*\n.*pkg/model/config.json"),
    ],
)
def test_what_differs_is_an_error(project: Project, put_wheel: PutWheel, source: dict[str, Any], message: str) -> None:
    put(project, "model", MODEL)
    put_wheel("pkg==1.0", {f"pkg/model/{name}": content for name, content in MODEL.items()})
    with pytest.raises(AttuneError, match=message):
        bring(project, **source)


def test_every_resource_comes_into_a_folder_of_its_name_with_hashes(project: Project, put_wheel: PutWheel) -> None:
    members = {f"pkg/model/{name}": content for name, content in {**MARIAN, **UNWANTED}.items()}
    others = dict.fromkeys(["pkg/model2/merges.txt", "pkg/model/../../../added_tokens.json"], b"")
    put_wheel("translator==1.0", members | others)
    more = {"LICENSE": b"free", "lexnames": b"", "index.sense": b""}
    pickled = {"model.bin": b"\x80\x04pickle"}
    named = {
        "wordnet": FolderSource(path=put(project, "dict", {**DICT, **more, **UNWANTED, "data.noun.py": b"x"})),
        "masked_lm": FolderSource(path=put(project, "bert", {**MODEL, **UNWANTED, **pickled})),
        "translation_forward": FolderSource(wheel="translator==1.0", member="pkg/model/"),
    }
    folders = bring_named(project, **named)
    assert folders == {
        "wordnet": DICT | more,
        "masked_lm": MODEL,
        "translation_forward": MARIAN,
    }
    report = json.loads((project.root / "models/resources/resources.json").read_text())
    for name, files in folders.items():
        assert report[name]["origin"] == named[name].origin
        assert report[name]["sha256"] == {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("wordnet", {"data.noun": b""}, "no WordNet there: data.verb, data.adj, data.adv, index.noun"),
        ("masked_lm", {**MODEL, "config.json": b'{"model_type": "marian"}'}, "knows no masked language model"),
        ("translation_back", {**MARIAN, "config.json": b'{"model_type": "bert"}'}, "knows no translation model"),
        (
            "translation_back",
            {**MARIAN, "config.json": b'{"model_type": "marian", "auto_map": {}}'},
            "asks for code of its own",
        ),
    ],
)
def test_what_its_use_could_not_take_is_refused_now(project: Project, name: str, files: Files, message: str) -> None:
    with pytest.raises(AttuneError, match=message):
        bring_named(project, **{name: FolderSource(path=put(project, "it", files))})


TEXTS = [f"{word} {other} film, 好电影 {number}" for number in range(20) for word in ["good", "bad"] for other in "abc"]
TRAIN = f"""
import json
from stages.ingest.scratch import train_vocabulary

texts = set({TEXTS!r})   # a set: its order follows PYTHONHASHSEED
print(json.dumps(train_vocabulary(list(texts), 200), sort_keys=True))
"""


def test_two_processes_build_the_same_bytes(project: Project) -> None:
    project.file("train.py", TRAIN)
    trained = {project.python("train.py", PYTHONHASHSEED=seed).stdout for seed in ("1", "12345")}
    assert len(trained) == 1 and len(json.loads(*trained)) > 50
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        build_scratch_model(TEXTS, Scratch(**TINY), project.root / name, seed=seed)
    first, second, other = (contents(project.root / name) for name in ("first", "second", "other"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(first)
    assert first == second
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_a_scratch_model_loads_and_knows_the_characters_of_the_texts(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    build_scratch_model(TEXTS, Scratch(**TINY), tmp_path / "base", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    model = AutoModel.from_pretrained(tmp_path / "base", use_safetensors=True)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Good 电影!")["input_ids"])
    assert tokens[:2] == ["[CLS]", "good"] and tokens[-2:] == ["[UNK]", "[SEP]"]
    assert {"电", "影"} <= set(tokens)
    assert model.config.vocab_size == len(tokenizer) <= TINY["vocab_size"]
    assert tokenizer.model_max_length == TINY["max_position_embeddings"]
