"""The Hugging Face Hub: its own client against a server with the same routes; files alone, at a fixed revision."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hub_server import COMMIT, Hub, serving_hub
from safetensors.numpy import save
from small_project import Project, received

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, Source
from stages.common.schemas import RawRecords
from stages.ingest.base_model import bring_model
from stages.ingest.expansion import Workspace
from stages.ingest.folders import files_of

ROWS = pl.DataFrame({"text": [f"text {at}" for at in range(12)], "label": ["a", "b"] * 6})
MODEL = {
    "config.json": json.dumps({"model_type": "bert"}).encode(),
    "model.safetensors": save({"embeddings": np.zeros(2, dtype=np.float32)}),
    "tokenizer.json": b"{}",
}
UNWANTED = {"pytorch_model.bin": b"pickle", "modeling.py": b"raise SystemExit", "onnx/model.safetensors": b"x"}
MAPPED = {"columns": {"text": "text", "label": "label"}}


def parquet() -> bytes:
    out = io.BytesIO()
    ROWS.write_parquet(out)
    return out.getvalue()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, and this process's client pointed at it (HF_ENDPOINT is read once, when the client is imported)."""
    from huggingface_hub import constants

    with serving_hub() as server:
        server.files = {
            "datasets/owner/reviews": {"data/rows.parquet": parquet(), "loader.py": b"exit()"},
            "datasets/owner/gated": {},
            "models/owner/model": {**MODEL, **UNWANTED, "small/config.json": b"{}"},
        }
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def data(member: str = "data/rows.parquet", revision: str = COMMIT, repository: str = "owner/reviews") -> Source:
    return Source(hub=repository, revision=revision, member=member, **MAPPED)


def read(source: Source, folder: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    tables, entry = received(source, folder, max_download_mb=1)
    return tables[0][1].select("text", "label"), entry


@pytest.mark.parametrize("revision", [COMMIT, "v1.0"])
def test_a_file_of_a_data_set_is_read_and_its_commit_told(hub: Hub, tmp_path: Path, revision: str) -> None:
    table, entry = read(data(revision=revision), tmp_path)
    assert table.equals(ROWS)
    assert entry["revision"] == COMMIT
    assert entry["origin"] == f"owner/reviews@{revision}:data/rows.parquet"
    assert entry["sha256"] == hashlib.sha256(parquet()).hexdigest()


def test_nothing_but_the_file_is_asked_for_and_a_commit_only_once(hub: Hub, tmp_path: Path) -> None:
    read(data(), tmp_path)
    assert {line.split(" ")[1] for line in hub.requests} == {
        f"/datasets/owner/reviews/resolve/{COMMIT}/data/rows.parquet"
    }
    hub.requests.clear()
    read(data(), tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (data("data/other.parquet"), "EntryNotFoundError"),
        (data(revision="v2.0"), "RevisionNotFoundError"),
        (data(repository="owner/none"), "RepositoryNotFoundError"),
        (data(repository="owner/gated"), "GatedRepoError"),
    ],
)
def test_what_is_not_there_is_told(hub: Hub, tmp_path: Path, source: Source, told: str) -> None:
    with pytest.raises(AttuneError) as raised:
        read(source, tmp_path)
    assert str(raised.value).startswith(f"{source.origin}: ")
    assert told in str(raised.value) and not raised.value.passing
    assert "127.0.0.1" not in str(raised.value)


def test_a_file_over_the_limit_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files["datasets/owner/reviews"]["large.csv"] = bytes(2 << 20)
    with pytest.raises(AttuneError, match="is larger than 1 MiB"):
        read(data("large.csv"), tmp_path)
    assert not any(line.startswith("GET") for line in hub.requests)


def test_a_hub_out_of_reach_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.failing = 501
    with pytest.raises(AttuneError, match=r"owner/reviews@c+:.*the hub could not be read") as raised:
        read(data(), tmp_path)
    assert raised.value.passing


def bring(folder: Path, **keys: str) -> dict[str, bytes]:
    source = BaseModelSource(hub="owner/model", **{"revision": COMMIT, **keys})
    assert bring_model(source, folder / "base", Workspace(folder, folder, max_download_mb=1)) == COMMIT
    return {name: (folder / "base" / name).read_bytes() for name in files_of(folder / "base")}


@pytest.mark.parametrize("revision", [COMMIT, "v1.0"])
def test_only_files_of_known_kinds_are_fetched_of_a_model(hub: Hub, tmp_path: Path, revision: str) -> None:
    assert bring(tmp_path, revision=revision) == MODEL
    fetched = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert fetched == set(MODEL)
    assert not any("onnx" in line for line in hub.requests)


def test_a_folder_of_a_models_repository_is_fetched_alone(hub: Hub, tmp_path: Path) -> None:
    hub.files["models/owner/model"] |= {f"small/{name}": content for name, content in MODEL.items()}
    assert bring(tmp_path, member="small") == MODEL
    assert all("/small/" in line for line in hub.requests if "/resolve/" in line)


def test_a_model_over_the_limit_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.files["models/owner/model"]["model.safetensors"] = bytes(2 << 20)
    with pytest.raises(AttuneError, match=r"owner/model@c+: is larger than 1 MiB"):
        bring(tmp_path)
    assert not any("/resolve/" in line and line.startswith("GET") for line in hub.requests)


def test_the_whole_stage_reads_data_and_model_of_the_hub(hub: Hub, project: Project) -> None:
    project.params(
        ingest={
            "sources": [{"hub": "owner/reviews", "revision": "v1.0", "member": "data/rows.parquet", **MAPPED}],
            "base_model": {"hub": "owner/model", "revision": COMMIT},
        }
    )
    done = project.run("-m", "stages.ingest", HF_ENDPOINT=hub.url, HF_HOME=str(project.root / "home"))
    assert done.returncode == 0, done.stderr
    assert RawRecords.read(project.root / "data/raw/records.parquet").height == 12
    manifest = json.loads((project.root / "data/raw/manifest.json").read_text())
    assert manifest["sources"][0]["revision"] == manifest["base_model"]["revision"] == COMMIT
    assert manifest["base_model"]["origin"] == f"owner/model@{COMMIT}"
    assert set(manifest["base_model"]["sha256"]) == set(MODEL)
