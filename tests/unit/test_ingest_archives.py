"""Archives: the right files as streams, in order of their names; a hostile archive is a message and does no harm."""

import bz2
import gzip
import io
import lzma
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_project import Project, received

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.ingest.archives import unpack
from stages.ingest.expansion import Limits, SizeBudget

ROWS = {"day/2.csv": b"text,label\nsecond,1\n", "day/1.csv": b"text,label\nfirst,0\n", "README.md": b"no rows"}
MEBIBYTE = 1 << 20


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tar_of(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "a.zip": zip_of,
    "a.tar": tar_of,
    "a.tar.gz": lambda members: gzip.compress(tar_of(members)),
    "a.tgz": lambda members: gzip.compress(tar_of(members)),
    "a.tar.bz2": lambda members: bz2.compress(tar_of(members)),
    "a.tar.xz": lambda members: lzma.compress(tar_of(members)),
    "A.TAR.XZ": lambda members: lzma.compress(tar_of(members)),
}


def unpacked(folder: Path, name: str, content: bytes, pattern: str, megabytes: int = 8) -> dict[str, bytes]:
    """What comes out of an archive; checks that nothing is written but the copies."""
    (folder / name).write_bytes(content)
    target = folder / "deep" / "target"
    target.mkdir(parents=True, exist_ok=True)
    try:
        found = unpack(folder / name, name, pattern, target, SizeBudget(megabytes, f"data/inbox/{name}"))
    finally:
        below = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert all(path == name or path.removeprefix("deep/target/").isdecimal() for path in below), below
    return {member: copy.read_bytes() for member, copy in found}


def fault(folder: Path, name: str, content: bytes, pattern: str = "a.csv", megabytes: int = 8) -> str:
    with pytest.raises(AttuneError) as raised:
        unpacked(folder, name, content, pattern, megabytes)
    assert str(raised.value).startswith(f"data/inbox/{name}: ")
    assert "\n  → " in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", PACKERS)
def test_one_file_comes_out_of_every_kind_of_archive(tmp_path: Path, name: str) -> None:
    assert unpacked(tmp_path, name, PACKERS[name](ROWS), "day/2.csv") == {"day/2.csv": ROWS["day/2.csv"]}


@pytest.mark.parametrize("name", PACKERS)
def test_a_pattern_takes_all_that_match_in_the_order_of_their_names(tmp_path: Path, name: str) -> None:
    found = unpacked(tmp_path, name, PACKERS[name]({**ROWS, "day/deep/3.csv": b"", "4.csv": b""}), "day/*.csv")
    assert list(found.items()) == [("day/1.csv", ROWS["day/1.csv"]), ("day/2.csv", ROWS["day/2.csv"])]


def test_the_files_of_a_pattern_become_the_rows_of_one_source(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/a.zip", zip_of({**ROWS, "day/2.csv.gz": gzip.compress(b"text,label\nthird,1\n")}))
    (tmp_path / "work").mkdir()
    for pattern, texts in (("day/?.csv", ["first", "second"]), ("day/*.csv.gz", ["third"])):
        source = Source(path="data/inbox/a.zip", member=pattern, columns={"text": "text", "label": "label"})
        tables, entry = received(source, Limits(), tmp_path, tmp_path / "work")
        assert [text for _, table in tables for text in table["text"]] == texts
        assert entry["origin"] == f"data/inbox/a.zip:{pattern}"
    assert list((tmp_path / "work").iterdir()) == []


def test_a_fault_in_a_file_of_a_pattern_is_told_with_that_files_name(project: Project, tmp_path: Path) -> None:
    project.file("data/inbox/a.zip", zip_of({**ROWS, "day/2.csv": b"text,label\nlonely\n"}))
    source = Source(path="data/inbox/a.zip", member="day/*.csv", columns={"text": "text", "label": "label"})
    with pytest.raises(AttuneError, match=r"^data/inbox/a.zip:day/2.csv:2: 1 fields where the header has 2"):
        received(source, Limits(), tmp_path, tmp_path)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("2.csv", "set member to one of: day/2.csv"),
        ("Day/*.csv", "set member to one of: day/1.csv, day/2.csv"),
        ("rows.parquet", "list the names that it holds"),
    ],
)
def test_a_file_that_is_not_there_is_answered_with_similar_names(
    tmp_path: Path, name: str, asked: str, told: str
) -> None:
    said = fault(tmp_path, name, PACKERS[name](ROWS), asked)
    assert f"the archive holds no file {asked!r}" in said
    assert told in said


# ── hostile archives ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("member", ["../../evil.csv", "/tmp/attune-evil.csv", "..\\evil.csv"])
def test_a_name_that_points_out_of_the_archive_is_never_a_path(tmp_path: Path, name: str, member: str) -> None:
    packed = PACKERS[name]({member: b"evil", "a.csv": b"good"})
    assert unpacked(tmp_path, name, packed, member) == {member: b"evil"}
    assert not Path("/tmp/attune-evil.csv").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret").mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a.csv")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "is a link or a device, no plain file" in fault(tmp_path, "a.tar", out.getvalue())


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("a.csv")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "is a link or a device" in fault(tmp_path, "a.zip", out.getvalue())


def test_an_encrypted_zip_is_told(tmp_path: Path) -> None:
    packed = bytearray(zip_of({"a.csv": b"text"}))
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        packed[packed.index(signature) + at] |= 1
    assert "is encrypted: unpack it" in fault(tmp_path, "a.zip", bytes(packed))


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "a.zip":
            with zipfile.ZipFile(out, "w") as archive:
                archive.writestr("a.csv", b"one")
                archive.writestr("a.csv", b"two")
        else:
            out.write(tar_of({"a.csv": b"one", "./a.csv": b"two"}))
    assert "'a.csv' is there twice" in fault(tmp_path, name, out.getvalue())


BOMB = bytes(3 * MEBIBYTE)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "a.tar"])
def test_more_than_the_limit_does_not_come_out(tmp_path: Path, name: str) -> None:
    packed = PACKERS[name]({"a.csv": BOMB})
    assert len(packed) < MEBIBYTE
    assert "unpacks to more than 2 MiB" in fault(tmp_path, name, packed, megabytes=2)
    assert unpacked(tmp_path, name, packed, "a.csv", megabytes=4) == {"a.csv": BOMB}
    copies = [path.stat().st_size for path in (tmp_path / "deep").rglob("*") if path.is_file()]
    assert max(copies) <= 4 * MEBIBYTE


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_bomb_before_the_file_asked_for_is_not_unpacked_either(tmp_path: Path, name: str) -> None:
    packed = PACKERS[name]({"bomb": BOMB, "a.csv": b"text"})
    assert "unpacks to more than 2 MiB" in fault(tmp_path, name, packed, megabytes=2)


def test_many_files_are_counted_together(tmp_path: Path) -> None:
    packed = zip_of({f"{at}.csv": bytes(MEBIBYTE) for at in range(3)})
    assert "unpacks to more than 2 MiB" in fault(tmp_path, "a.zip", packed, "*.csv", megabytes=2)


def header_claiming(size: int) -> bytes:
    info = tarfile.TarInfo("a.csv")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("size", [100_000, 1 << 40])
def test_a_tar_header_that_claims_more_than_there_is_is_told(tmp_path: Path, name: str, size: int) -> None:
    cut = header_claiming(size) + b"x" * 1024
    fault(tmp_path, name, cut if name == "a.tar" else gzip.compress(cut))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path, name: str) -> None:
    plain = bytearray(tar_of({"1.csv": b"one", "2.csv": b"two"}))
    plain[1024 + 150] ^= 0xFF  # in the second header's checksum
    packed = {"a.tar": bytes, "a.tar.gz": gzip.compress, "a.tar.bz2": bz2.compress, "a.tar.xz": lzma.compress}[name]
    assert "the archive is damaged" in fault(tmp_path, name, packed(bytes(plain)), "*.csv")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_that_is_cut_off_between_two_files_is_told(tmp_path: Path, name: str) -> None:
    cut = tar_of({"1.csv": b"one", "2.csv": b"two"})[:1024]
    packed = cut if name == "a.tar" else gzip.compress(cut)
    assert "it is cut off" in fault(tmp_path, name, packed, "*.csv")


WHOLE = {name: pack(ROWS) for name, pack in PACKERS.items()}


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
def test_whatever_is_changed_in_an_archive_the_answer_is_its_files_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, change: bytes, cut: bool
) -> None:
    whole = WHOLE[name]
    at = at * len(whole) // 400
    changed = whole[:at] if cut else whole[:at] + change + whole[at + len(change) :]
    folder = tmp_path_factory.mktemp("changed")
    try:
        found = unpacked(folder, name, changed, "day/*.csv")
    except AttuneError as error:
        assert str(error).startswith(f"data/inbox/{name}: ")
    else:
        # A zip has checksums of its files but not of their names, a plain tar of its names but not of its files.
        assert sorted(found) == ["day/1.csv", "day/2.csv"] or name == "a.zip", "a file is gone in silence"
        assert set(found.values()) <= set(ROWS.values()) or name == "a.tar"
