"""What both models cost: sizes out of their files, times measured here in turns."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.reviewing import costs
from flows.reviewing.costs import measured
from flows.reviewing.findings import Figure
from flows.reviewing.revision import Revision
from stages.common.serving.decision import Decision
from tests.unit.small_revisions import put_split, put_text, revision
from tests.unit.small_served import LABELS, WORDS, make_package

FORMS = ["latency of one text", "latency of one text in 8 bits"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a tiny model in all its forms."""
    folder = tmp_path_factory.mktemp("made")
    make_package(folder / "package")
    for part, name in (("model", "finetuned"), ("exported", "exported"), ("serving", "serving")):
        shutil.copytree(folder / "package" / part, folder / "project" / "models" / name)
    put_split(folder / "project", "test", {f"r{at}": (LABELS[0], word, None) for at, word in enumerate(WORDS)})
    return folder / "project"


@pytest.fixture
def sides(made: Path, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> tuple[Revision, Revision]:
    """Two revisions with the same model."""
    monkeypatch.setattr(costs, "SECONDS", 0.0)
    monkeypatch.setattr(costs, "CALLS", 10)
    for name in ("base", "head"):
        shutil.copytree(made, tmp_path / name)
    return revision(tmp_path / "base", "main"), revision(tmp_path / "head", "HEAD")


def other_bytes(side: Revision) -> None:
    """Give a revision a model that is the same but for its bytes."""
    with (side.folder / "models/finetuned/config.json").open("a") as file:
        file.write("\n")


def by_name(figures: tuple[Figure, ...]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_models_of_other_bytes_are_timed_and_equal_ones_are_not(sides: tuple[Revision, Revision]) -> None:
    other_bytes(sides[1])
    found, missing = measured(*sides)
    assert list(by_name(found)) == ["weights", "size of the model", "size as ONNX", "size in 8 bits", FORMS[0]]
    torch = by_name(found)[FORMS[0]]
    assert torch.base and torch.head
    assert 0 < torch.base < 1000
    assert (torch.unit, torch.better) == ("ms", "lower")
    assert missing == ()


def test_sizes_are_those_of_the_files(sides: tuple[Revision, Revision]) -> None:
    exported = sides[1].folder / "models/exported/model.onnx"
    with exported.open("ab") as file:
        file.write(bytes(2**20))
    (sides[0].folder / "models/exported/int8.onnx").unlink()
    found = by_name(measured(*sides)[0])
    onnx, weights = found["size as ONNX"], found["size of the model"]
    assert onnx.base and onnx.head and onnx.head - onnx.base == 1.0
    assert weights.base == (sides[0].folder / "models/finetuned/model.safetensors").stat().st_size / 2**20
    assert found["weights"].base == found["weights"].head
    assert found["size in 8 bits"].base is None
    assert found["size in 8 bits"].head
    assert FORMS[1] not in found


def without_model(side: Revision) -> None:
    shutil.rmtree(side.folder / "models")


def test_a_revision_without_a_model_has_no_costs(sides: tuple[Revision, Revision]) -> None:
    without_model(sides[0])
    found, missing = measured(*sides)
    assert found
    assert all(figure.base is None and figure.head for figure in found)
    assert missing == ()
    without_model(sides[1])
    assert measured(*sides) == ((), ())


def broken_weights(side: Revision) -> None:
    put_text(side.folder, "models/finetuned/model.safetensors", "nothing")


def other_labels(side: Revision) -> None:
    Decision(["other", "labels"]).write(side.folder / "models/serving")


def no_texts(side: Revision) -> None:
    put_split(side.folder, "test", {})


def no_test_split(side: Revision) -> None:
    (side.folder / "data/clean/test.parquet").unlink()


@pytest.mark.parametrize("broken", [broken_weights, other_labels, no_texts, no_test_split])
def test_what_fails_is_a_line_and_no_error(
    sides: tuple[Revision, Revision], broken: Callable[[Revision], None]
) -> None:
    other_bytes(sides[1])
    broken(sides[1])
    found, missing = measured(*sides)
    assert by_name(found)["size of the model"].base
    assert FORMS[0] not in by_name(found)
    assert any(line.startswith(f"{FORMS[0]} could not be measured: ") for line in missing)


def test_models_that_take_long_to_load_are_not_timed(
    sides: tuple[Revision, Revision], monkeypatch: pytest.MonkeyPatch
) -> None:
    other_bytes(sides[1])
    monkeypatch.setattr(costs, "LARGEST", 10)
    found, missing = measured(*sides)
    assert not by_name(found).keys() & set(FORMS)
    assert missing and all("is not measured: the weights are over" in line for line in missing)
