"""Archives: the right files as streams, in order of their names; a hostile archive is a message and does no harm."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import AttuneError
from stages.common.params import Source
from stages.ingest.archives import SizeBudget, unpack
from tests.projects import Project
from tests.unit.small_records import received

ROWS = {"day/2.csv": b"text,label\nsecond,1\n", "day/1.csv": b"text,label\nfirst,0\n", "README.md": b"no rows"}
BOMB = bytes(3 << 20)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "A.TAR.XZ": lzma.compress,
}


def pack(name: str, members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
            for member, content in members.items():
                zipped.writestr(member, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return COMPRESS[name](out.getvalue())


def unpacked(folder: Path, name: str, content: bytes, pattern: str, megabytes: int = 8) -> dict[str, bytes]:
    """What comes out of an archive; checks that nothing is written but the copies."""
    (folder / name).write_bytes(content)
    try:
        copies = unpack(folder / name, name, [pattern], folder / "deep", SizeBudget(megabytes, f"data/inbox/{name}"))
    finally:
        below = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert all(path == name or path.removeprefix("deep/").isdecimal() for path in below), below
    return {member: copy.read_bytes() for member, copy in copies.items()}


def fault(folder: Path, name: str, content: bytes, pattern: str = "a.csv", megabytes: int = 8) -> str:
    with pytest.raises(AttuneError) as raised:
        unpacked(folder, name, content, pattern, megabytes)
    assert str(raised.value).startswith(f"data/inbox/{name}: ")
    return str(raised.value)


@pytest.mark.parametrize("name", ["a.zip", *COMPRESS])
def test_files_come_out_by_name_or_pattern_in_the_order_of_their_names(tmp_path: Path, name: str) -> None:
    packed = pack(name, {**ROWS, "day/deep/3.csv": b"", "4.csv": b"", "../../evil.csv": b"", "..\\evil.csv": b"evil"})
    assert unpacked(tmp_path, name, packed, "day/2.csv") == {"day/2.csv": ROWS["day/2.csv"]}
    assert list(unpacked(tmp_path, name, packed, "day/*.csv").items()) == [
        ("day/1.csv", ROWS["day/1.csv"]),
        ("day/2.csv", ROWS["day/2.csv"]),
    ]
    for outside in ("../../evil.csv", "..\\evil.csv"):  # a name, and never a path
        assert list(unpacked(tmp_path, name, packed, outside)) == [outside]


def test_a_member_is_found_however_its_accents_are_stored(tmp_path: Path) -> None:
    packed = pack("a.zip", {"cafe\u0301/1.csv": b"one", "caf\xe9/2.csv": b"two"})
    for pattern in ("caf\xe9/*.csv", "cafe\u0301/*.csv"):
        assert [*unpacked(tmp_path, "a.zip", packed, pattern).values()] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_what_systems_add_to_an_archive_is_no_match_of_a_pattern_unless_it_is_named(tmp_path: Path, name: str) -> None:
    added = ("__MACOSX/1.csv", "__MACOSX/day/._1.csv", "day/._1.csv", "day/.DS_Store", "day/Thumbs.db", "day/~$1.csv")
    packed = pack(name, {**dict.fromkeys(added, b"\0\5\x16\7"), **ROWS})
    assert [*unpacked(tmp_path, name, packed, "day/*")] == ["day/1.csv", "day/2.csv"]
    assert [*unpacked(tmp_path, name, packed, "*/1.csv")] == ["day/1.csv"]
    assert [*unpacked(tmp_path, name, packed, "day/._1.csv")] == ["day/._1.csv"]
    assert fault(tmp_path, name, packed, "9.csv").endswith("set member to one of: day/2.csv, day/1.csv, README.md")


def test_a_fault_in_a_file_of_a_pattern_is_an_error_with_its_name_and_line(project: Project, tmp_path: Path) -> None:
    packed = pack("a.zip", {**ROWS, "day/2.csv.gz": gzip.compress(b"text,label\nsecond,1\nlonely\n")})
    project.file("data/inbox/a.zip", packed)
    (tmp_path / "work").mkdir()
    source = Source(path="data/inbox/a.zip", member="day/*.csv.gz", columns={"text": "text", "label": "label"})
    with pytest.raises(AttuneError, match=r"^data/inbox/a.zip:day/2.csv.gz:3: 1 fields where the header has 2"):
        received(source, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_file_that_is_not_there_is_answered_with_similar_names(tmp_path: Path) -> None:
    for asked, named in (("2.csv", "day/2.csv"), ("Day/*.csv", "day/2.csv, day/1.csv, README.md")):
        message = fault(tmp_path, "a.zip", pack("a.zip", ROWS), asked)
        assert f"the archive holds no file {asked!r}\n  → set member to one of: {named}" in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.CHRTYPE, None])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes | None) -> None:
    out = io.BytesIO()
    if kind:
        with tarfile.open(fileobj=out, mode="w") as archive:
            info = tarfile.TarInfo("a.csv")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    else:
        with zipfile.ZipFile(out, "w") as zipped:
            link = zipfile.ZipInfo("a.csv")
            link.create_system, link.external_attr = 3, 0o120777 << 16
            zipped.writestr(link, "/etc/passwd")
    assert "is a link or a device, no plain file" in fault(tmp_path, "a.tar" if kind else "a.zip", out.getvalue())


def test_encrypted_files_and_names_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    packed = bytearray(pack("a.zip", {"a.csv": b"text"}))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        packed[packed.index(signature) + offset] |= 1
    assert "is encrypted" in fault(tmp_path, "a.zip", bytes(packed))
    (tmp_path / "a.zip").unlink()
    assert "'a.csv' is there twice" in fault(tmp_path, "a.tar", pack("a.tar", {"a.csv": b"one", "./a.csv": b"two"}))


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar.bz2", "A.TAR.XZ"])
def test_more_than_the_limit_does_not_come_out(tmp_path: Path, name: str) -> None:
    packed = pack(name, {"a.csv": BOMB, "b.csv": BOMB[: 1 << 20]})
    assert unpacked(tmp_path, name, packed, "*.csv", megabytes=5) == {"a.csv": BOMB, "b.csv": BOMB[: 1 << 20]}
    assert "unpacks to more than 3 MiB" in fault(tmp_path, name, packed, "*.csv", megabytes=3)
    if name != "a.zip":  # on the way to the file asked for
        assert "unpacks to more than 2 MiB" in fault(tmp_path, name, packed, "b.csv", megabytes=2)


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_a_tar_that_is_cut_off_or_broken_in_the_middle_is_an_error(tmp_path: Path, name: str) -> None:
    plain = bytearray(pack("a.tar", {"1.csv": b"one", "2.csv": b"two"}))
    assert "it is cut off" in fault(tmp_path, name, COMPRESS[name](plain[:1024]), "*.csv")
    plain[1024 + 150] ^= 0xFF  # in the second header's checksum
    assert "a header is broken" in fault(tmp_path, name, COMPRESS[name](bytes(plain)), "*.csv")
    claim = tarfile.TarInfo("a.csv")
    claim.size = 1 << 40
    fault(tmp_path, name, COMPRESS[name](claim.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024))


WHOLE = {name: pack(name, ROWS) for name in ("a.zip", *COMPRESS)}


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
def test_whatever_is_changed_in_an_archive_the_answer_is_its_files_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, change: bytes, cut: bool
) -> None:
    whole = WHOLE[name]
    position = position * len(whole) // 400
    changed = whole[:position] if cut else whole[:position] + change + whole[position + len(change) :]
    try:
        contents = unpacked(tmp_path_factory.mktemp("changed"), name, changed, "day/*.csv")
    except AttuneError as error:
        assert str(error).startswith(f"data/inbox/{name}: ")
    else:
        # A zip has checksums of its files but not of their names, a plain tar of its names but not of its files.
        assert sorted(contents) == ["day/1.csv", "day/2.csv"] or name == "a.zip", "a file is gone in silence"
        assert set(contents.values()) <= set(ROWS.values()) or name == "a.tar"
