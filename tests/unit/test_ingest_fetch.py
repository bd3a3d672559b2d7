"""Getting a source's bytes: the right ones by hash, out of a wheel or package without running it, or a message."""

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.common.pipeline.dvc_files import check_deps
from stages.ingest.archives import Workspace
from stages.ingest.fetch import licence_of, local_file
from tests.projects import Project
from tests.unit.file_server import serving
from tests.unit.small_records import received, zipped

PutWheel = Any
ROWS = b"text,label\ngood,1\n"
SHA256 = hashlib.sha256(ROWS).hexdigest()
METADATA = b"Metadata-Version: 2.1\nName: reviews\nVersion: 1.0\nLicense: CC-BY-4.0\n\nLicense: not this one\n"
MAPPED = {"columns": {"text": "text", "label": "label"}}
INBOX = Source(path="data/inbox/rows.csv", **MAPPED)
WHEEL = Source(wheel="reviews==1.0", member="reviews/rows.csv", **MAPPED)


def locate(source: Source, downloads: Path, unpacked: Path) -> Path:
    return local_file(source, Workspace(downloads, unpacked), unpacked)[0]


def test_a_wrong_sha256_shows_the_expected_and_the_actual_one(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/rows.csv", ROWS)
    assert locate(INBOX.model_copy(update={"sha256": SHA256}), tmp_path, tmp_path).read_bytes() == ROWS
    with pytest.raises(AttuneError) as raised:
        locate(INBOX.model_copy(update={"sha256": "0" * 64}), tmp_path, tmp_path)
    assert str(raised.value).startswith("data/inbox/rows.csv: ")
    assert f"expected sha256 {'0' * 64}\n  actual   sha256 {SHA256}" in str(raised.value)


def test_a_download_with_a_wrong_sha256_is_fetched_anew_by_the_next_run(tmp_path: Path) -> None:
    with serving(content=b"<html>busy</html>") as server:
        source = Source(url=server.url, sha256=SHA256, **MAPPED)
        with pytest.raises(AttuneError, match="its content is not what"):
            locate(source, tmp_path, tmp_path)
        server.manners.content = ROWS
        assert locate(source, tmp_path, tmp_path).read_bytes() == ROWS


def test_a_missing_file_is_answered_with_what_is_in_the_inbox(project: Project, tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match=r"(?s)rows.csv: no such file.*copy the file into data/inbox/"):
        locate(INBOX, tmp_path, tmp_path)
    os.mkfifo(project.root / "data/inbox/pipe.csv")  # to open it would wait for a writer
    with pytest.raises(AttuneError, match=r"data/inbox/pipe.csv: no regular file"):
        locate(INBOX.model_copy(update={"path": "data/inbox/pipe.csv"}), tmp_path, tmp_path)
    for name in ("mine.csv", "other.jsonl", "README.md", ".gitignore"):
        project.file(f"data/inbox/{name}", b"x")
    with pytest.raises(AttuneError, match=r"no such file\n.*there is: data/inbox/mine.csv, data/inbox/other.jsonl$"):
        locate(INBOX, tmp_path, tmp_path)


@pytest.mark.parametrize(("stored", "named"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_however_its_accents_are_stored(
    project: Project, tmp_path: Path, stored: str, named: str
) -> None:
    name = "data/inbox/caf\xe9/r\xe9sum\xe9.csv"
    assert project.file(unicodedata.normalize(stored, name), ROWS).exists()
    source = Source(path=unicodedata.normalize(named, name), **MAPPED)
    assert locate(source, tmp_path, tmp_path).read_bytes() == ROWS
    assert source.origin == name, "one spelling, so that the same file twice is noticed"


def test_a_link_that_leads_out_of_the_inbox_is_refused(project: Project, tmp_path: Path) -> None:
    inbox, outside = project.root / "data/inbox", tmp_path / "secret.csv"
    project.file(".dvcignore", b".#*\n")
    outside.write_bytes(ROWS)
    project.file("data/inbox/mine.csv", ROWS)
    (inbox / "same.csv").symlink_to("mine.csv")
    (inbox / ".#mine.csv").symlink_to("me@host.1234")  # of Emacs, and leads nowhere
    for number, kept in enumerate((".dvc/cache/files/md5/0f/" + "a" * 30, "other/data/inbox/mine.csv")):
        (inbox / f"{number}.csv").symlink_to(project.file(kept, ROWS))  # as DVC and scheduled runs link them
    check_deps()
    for link, target in (("deep/secret.csv", outside), ("home", tmp_path), ("up.csv", "../../params.yaml")):
        (inbox / "deep").mkdir(exist_ok=True)
        (inbox / link).symlink_to(target)
        with pytest.raises(AttuneError, match=f"data/inbox/{link} is a link that leads out of data/inbox/, to /"):
            check_deps()
        (inbox / link).unlink()


def test_only_the_member_asked_for_leaves_a_wheel_and_no_code_runs(put_wheel: PutWheel, tmp_path: Path) -> None:
    marker = tmp_path / "code_ran"
    code = f"open({str(marker)!r}, 'w').close()".encode()
    members = {"reviews/__init__.py": code, "setup.py": code, "reviews/rows.csv": ROWS}
    downloads = put_wheel("reviews==1.0", members)
    assert licence_of(WHEEL, downloads) is None
    put_wheel("reviews==1.0", {**members, "reviews-1.0.dist-info/METADATA": METADATA})
    file = locate(WHEEL, downloads, tmp_path / "unpacked")
    assert file.read_bytes() == ROWS
    assert [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file()] == [file]
    assert licence_of(WHEEL, downloads) == "CC-BY-4.0"
    assert not marker.exists()


def test_pip_brings_a_wheel_once(put_wheel: PutWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"METADATA": METADATA, "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    members = {f"reviews-1.0.dist-info/{name}": content for name, content in {**about, "RECORD": b""}.items()}
    shelf = put_wheel("reviews==1.0", {"reviews/rows.csv": ROWS, **members}, tmp_path / "shelf")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AttuneError, match=r"(?s)reviews==1.0: pip could not download.*No matching distribution found"):
        locate(WHEEL, tmp_path / "downloads", tmp_path)
    for links in (os.fspath(shelf / "reviews==1.0"), ""):
        monkeypatch.setenv("PIP_FIND_LINKS", links)
        assert locate(WHEEL, tmp_path / "downloads", tmp_path).read_bytes() == ROWS
    assert [folder.name for folder in (tmp_path / "downloads").iterdir()] == ["reviews==1.0"]


def test_a_file_of_an_installed_package_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = "Metadata-Version: 2.1\nName: attunetoy\nVersion: 2.0\nLicense-Expression: MIT\n\n"
    for name, content in {
        "attunetoy/__init__.py": "raise SystemExit('imported')",
        "attunetoy/rows.csv": ROWS.decode(),
        "attunetoy-2.0.dist-info/METADATA": about,
        "attunetoy-2.0.dist-info/RECORD": "attunetoy/__init__.py,,\nattunetoy/rows.csv,,\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source(package="attunetoy", member="attunetoy/rows.csv", **MAPPED)
    assert locate(source, tmp_path, tmp_path).read_bytes() == ROWS
    assert licence_of(source, tmp_path) == "MIT"
    for package, message in (
        ("attunetoy", r"attunetoy 2.0 holds no file 'rows.csv'\n.*attunetoy/rows.csv"),
        ("attune-no-such-package", r"(?s)is not installed.*pip install attune-no-such-package"),
    ):
        with pytest.raises(AttuneError, match=message):
            locate(Source(package=package, member="rows.csv", **MAPPED), tmp_path, tmp_path)


FILES = {"pos/1.txt": b"good film\nfine film\n", "neg/1.txt": b"bad film\n"}


def test_a_folder_or_an_archive_of_documents_has_a_row_a_file_and_the_folders_are_labels(project: Project) -> None:
    for name, content in (FILES | {"pos/._1.txt": b"x", "Thumbs.db": b"x"}).items():
        project.file(f"data/inbox/train/{name}", content)
    project.file("data/inbox/train.zip", zipped(FILES))
    rows = [("bad film\n", "neg", None), ("good film\nfine film\n", "pos", None)]
    labelled: Any = {"format": "document", "columns": {"text": "text", "label": "folder"}}
    for where in ({"path": "data/inbox/train"}, {"path": "data/inbox/train.zip", "member": "*/*.txt"}):
        [(_, records)], _ = received(Source(**where, **labelled), project.root)
        assert records.select("text", "label", "group").rows() == rows
    folder = Source(path="data/inbox/train", **labelled)
    entry = received(folder, project.root)[1]
    assert entry["bytes"] == sum(map(len, FILES.values()))
    received(folder.model_copy(update={"sha256": entry["sha256"]}), project.root)
    project.file("data/inbox/train/pos/2.txt", b"new")
    with pytest.raises(AttuneError, match="its content is not what"):
        received(folder.model_copy(update={"sha256": entry["sha256"]}), project.root)
    with pytest.raises(AttuneError, match="a folder of documents needs format: document"):
        received(Source(path="data/inbox/train", format="lines", label="x"), project.root)


def test_a_file_of_several_plain_texts_is_a_group(project: Project) -> None:
    project.file("data/inbox/train.zip", zipped(FILES))
    project.file("data/inbox/a.txt", b"one\ntwo\n")
    archive = Source(path="data/inbox/train.zip", member="*/*.txt", label="x")
    groups = [records["group"].to_list() for _, records in received(archive, project.root)[0]]
    assert groups == [["data/inbox/train.zip:neg/1.txt"], ["data/inbox/train.zip:pos/1.txt"] * 2]
    [(_, records)], _ = received(Source(path="data/inbox/a.txt", label="x"), project.root)
    assert records["group"].to_list() == [None, None]


def test_files_whose_names_begin_alike_are_all_read(project: Project) -> None:
    files = {f"{'long' * 50}{number}.txt": b"text" for number in range(3)}
    project.file("data/inbox/train.zip", zipped(files))
    assert len(received(Source(path="data/inbox/train.zip", member="*.txt", label="x"), project.root)[0]) == 3
