"""Batch prediction: what is read, what is written, and what a broken row or a changed input leads to."""

import json
import shutil
import signal
import sqlite3
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.command import program
from flows.predict import DRIFTED, main
from stages.common.drift import profile_of
from stages.common.errors import AttuneError
from stages.common.text.cleaning import TextCleaning
from stages.serving.backends import Package, Predictor
from stages.tasks.text_classification import TASK
from tests.models import LABELS
from tests.projects import PARAMS, Project
from tests.unit.small_decisions import label_decision
from tests.unit.small_served import register, working_in
from tests.unit.test_tables import PACKERS

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [f"the film was {word} and {other}" for word in ("dull", "warm", "flat") for other in ("bright", "noisy")] * 4
OWN = ["id", "label", "score", "abstained", "probability_bad", "probability_good"]


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A tiny model's folder, as the pipeline leaves it."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_model, root / "models" / "finetuned")
    serving = root / "models" / "serving"
    label_decision(list(LABELS), 1.5).write(serving)
    answers = Predictor(Package.of_project(root), threads=1).outputs(TEXTS)
    middle = float(np.median(answers.max(axis=1)))
    decision = label_decision(list(LABELS), 1.5, dict.fromkeys(LABELS, middle))
    decision.write(serving)
    columns = {"id": [str(number) for number in range(len(TEXTS))], "text": TEXTS, "label": ["bad"] * len(TEXTS)}
    none = pl.lit(None, pl.String)
    rows = pl.DataFrame(columns).with_columns(text_pair=none, group=none)
    values = TASK.drift_values(answers, decision)
    profile = profile_of(rows, {"bad": len(TEXTS)}, values, decision.abstains(answers))
    (serving / "profile.json").write_text(json.dumps(profile))
    (serving / "text_cleaning.json").write_text(TextCleaning().as_text())
    return root / "models"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(models: Path, *arguments: str) -> int:
    return main([*arguments, "--model", str(models)])


def test_each_row_in_is_a_row_out_in_the_same_order_with_the_answer_of_the_model(models: Path, folder: Path) -> None:
    texts: list[str | None] = [*TEXTS, None, "  \u200b", "x " * 500, *reversed(TEXTS)]
    pl.DataFrame({"text": texts, "number": range(len(texts))}).write_parquet("in.parquet")
    assert run(models, "in.parquet", "out.parquet", "--batch-rows", "7", "--keep", "number") == 0
    out = pl.read_parquet("out.parquet")
    assert out.columns == [*OWN, "number"] and out["number"].to_list() == list(range(len(texts)))
    assert out["id"].to_list() == [str(number + 1) for number in range(len(texts))]
    classifier = Predictor(Package.of_project(models.parent), threads=1)
    readable = [row for row, text in enumerate(texts) if text and text.strip(" \u200b")]
    expected = classifier.outputs([texts[row] or "" for row in readable])
    assert np.allclose(out[readable].select("^probability_.*$").to_numpy(), expected, atol=2e-6)
    abstained = classifier.decision.abstains(expected)
    assert abstained.any() and not abstained.all()
    labels = [None if no else list(LABELS)[best] for best, no in zip(expected.argmax(axis=1), abstained, strict=True)]
    assert out[readable]["label"].to_list() == labels and out[readable]["abstained"].to_list() == abstained.tolist()
    empty = out[[24, 25]]
    assert (
        empty["abstained"].all() and empty.select("label", "score", "probability_bad").null_count().row(0) == (2,) * 3
    )


def test_a_text_is_read_as_the_texts_of_training_were(models: Path, folder: Path) -> None:
    clean = f"{TEXTS[0]} caf\u00e9 & more"
    raw = f"<br />{TEXTS[0].replace('l', '&#108;')} caf\u00c3\u00a9 &amp; more"
    pl.DataFrame({"text": [raw, clean, "<br/>&nbsp;"]}).write_parquet("in.parquet")
    assert run(models, "in.parquet", "out.parquet") == 0
    first, second, nothing = pl.read_parquet("out.parquet").drop("id").rows(named=True)
    assert first == second
    assert nothing["abstained"] and nothing["score"] is None, "markup alone is no text"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_formats_hold_the_same_and_the_same_again(models: Path, folder: Path, suffix: str) -> None:
    pl.DataFrame({"text": TEXTS, "label": ['x,"y\n'] * len(TEXTS)}).write_csv("in.csv")
    command = ["in.csv", f"out.{suffix}", "--keep-all", "--batch-rows", "5"]
    assert run(models, *command) == 0
    first = [Path(f"out.{suffix}").read_bytes(), Path(f"out.{suffix}.drift.json").read_bytes()]
    reader: Any = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[suffix]
    read = reader(f"out.{suffix}")
    assert read.columns == [*OWN, "text", "input_label"] and read["text"].to_list() == TEXTS
    assert read["input_label"].unique().to_list() == ['x,"y\n']
    assert run(models, *command) == 0
    again = [Path(f"out.{suffix}").read_bytes(), Path(f"out.{suffix}.drift.json").read_bytes()]
    assert again == first and str(folder).encode() not in b"".join(first)
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv", f"out.{suffix}", f"out.{suffix}.drift.json"]


def test_a_threshold_of_ones_own_decides_instead_of_the_models(models: Path, folder: Path) -> None:
    Path("in.csv").write_text("text\n" + "\n".join(TEXTS))
    for threshold, abstained in (("1", True), ("0", False)):
        assert run(models, "in.csv", "out.csv", "--threshold", threshold) == 0
        assert set(pl.read_csv("out.csv")["abstained"]) == {abstained}
    assert json.loads(Path("out.csv.drift.json").read_text())["drift"]["not_compared"] == ["abstentions"]


def test_drift_is_reported_and_ends_with_its_own_status_once_all_is_written(
    models: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("like.csv").write_text("text\n" + "\n".join(TEXTS))
    Path("other.csv").write_text("text\n" + "\n".join(f"ramen {n} " * 9 for n in range(200)))
    assert run(models, "like.csv", "like.parquet", "--fail-on-drift", "slight") == 0
    assert run(models, "other.csv", "other.parquet") == 0
    assert run(models, "other.csv", "other.parquet", "--fail-on-drift") == DRIFTED
    assert pl.read_parquet("other.parquet").height == 200
    assert json.loads(Path("other.parquet.drift.json").read_text())["drift"]["verdict"] == "strong drift"
    assert "strong drift" in capsys.readouterr().out


def test_a_model_without_a_profile_says_so(models: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bare").mkdir()
    (folder / "bare" / "model").symlink_to(models / "finetuned")
    Path("in.csv").write_text("text\nthe film\n")
    assert main(["in.csv", "out.csv", "--model", "bare", "--fail-on-drift"]) == 0
    assert "without a profile" in capsys.readouterr().out
    assert json.loads(Path("out.csv.drift.json").read_text())["drift"]["verdict"] == "unknown"


def test_a_database_gives_its_rows(models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect("reviews.db") as store:
        store.execute("CREATE TABLE reviews (number INTEGER, body TEXT)")
        store.executemany("INSERT INTO reviews VALUES (?, ?)", list(enumerate(TEXTS)))
    monkeypatch.setenv("REVIEWS_DB", f"sqlite:///{folder / 'reviews.db'}")
    options = ["--text", "body", "--id", "number", "--batch-rows", "5"]
    assert run(models, "sql:REVIEWS_DB", "a.csv", "--query", "SELECT * FROM reviews ORDER BY number", *options) == 0
    assert pl.read_csv("a.csv")["id"].to_list() == list(range(len(TEXTS)))
    assert run(models, "sql:REVIEWS_DB", "c.csv") == 1, "there is no query"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_query_without_rows_gives_an_output_without_rows(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    with sqlite3.connect("reviews.db") as store:
        store.execute("CREATE TABLE reviews (number INTEGER, text TEXT)")
    monkeypatch.setenv("REVIEWS_DB", f"sqlite:///{folder / 'reviews.db'}")
    options = ["--query", "SELECT * FROM reviews", "--keep-all", "--fail-on-drift"]
    assert run(models, "sql:REVIEWS_DB", f"out.{suffix}", *options) == 0
    assert f"the query gives no rows, so out.{suffix} has none" in capsys.readouterr().out
    if suffix == "jsonl":
        assert Path("out.jsonl").read_bytes() == b""
    else:
        out = {"csv": pl.read_csv, "parquet": pl.read_parquet}[suffix](f"out.{suffix}")
        assert out.columns == [*OWN, "number", "text"] and out.height == 0
    report = json.loads(Path(f"out.{suffix}.drift.json").read_text())
    assert report["rows"] == 0 and report["drift"]["verdict"] == "not compared"


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("in.csv", 'text\nwarm\n\n""\ndull\n\n', ["warm", None, "dull"]),  # one column: what pandas counts
        ("in.csv", "text,n\nwarm,1\n\n,2\ndull,3\n", ["warm", None, "dull"]),
        ("in.txt", "warm\n\ndull\n", ["warm", None, "dull"]),  # of plain lines each one is a text
        ("in.jsonl", '{"text": "warm"}\n\n{"text": null}\n{"n": 1}\n', ["warm", None, None]),
        ("in.NDJSON", '{"text": "warm"}\n', ["warm"]),
    ],
)
def test_there_is_one_answer_for_each_row_of_the_file(
    models: Path, folder: Path, name: str, content: str, rows: list[str | None]
) -> None:
    Path(name).write_text(content)
    assert run(models, name, "out.csv", "--keep", "line" if name == "in.txt" else "text") == 0
    out = pl.read_csv("out.csv")
    assert out["id"].to_list() == list(range(1, len(rows) + 1))
    assert out.to_series(-1).to_list() == rows and out["score"].is_null().to_list() == [row is None for row in rows]
    packed = PACKERS[".zst"](content.encode())
    Path(f"{name}.zst").write_bytes(packed)
    assert run(models, f"{name}.zst", "same.csv", "--keep", "line" if name == "in.txt" else "text") == 0
    assert Path("same.csv").read_bytes() == Path("out.csv").read_bytes()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_texts_are_in_the_column_that_the_model_was_trained_on(models: Path, project: Project, ending: str) -> None:
    source = {"path": "data/inbox/a.csv", "label": "a", "columns": {"text": "body"}}
    ingest = {**PARAMS["ingest"], "sources": [source]}
    project.params(ingest=ingest)
    with working_in(project.root) as client:
        shutil.copytree(models, "models", dirs_exist_ok=True)
        rows = pl.DataFrame({"text": ["dull"], "body": ["warm"]})
        write: Any = {"csv": pl.DataFrame.write_csv, "jsonl": pl.DataFrame.write_ndjson}[ending]
        write(rows, f"in.{ending}")
        write(rows.select("text"), f"old.{ending}")
        register(client, Package.of_project(), "tests", ingest=ingest)
        for model in ("models/", "models:/tests/1"):
            for name, named, column in (("in", [], "body"), ("in", ["--text", "text"], "text"), ("old", [], "text")):
                options = [*named, "--model", model]
                assert main([f"{name}.{ending}", "out.parquet", "--keep", column, *options]) == 0
                assert main([f"{name}.{ending}", "named.parquet", "--keep", column, "--text", column, *options]) == 0
                assert Path("out.parquet").read_bytes() == Path("named.parquet").read_bytes()


FILES = {
    "short.csv": b"text\none,two\n",
    "body.csv": b"body,n\nx,1\n",
    "body.jsonl": b'{"body": "x"}\n',
    "in.odd": b"x",
    "in.csv": b"text\nx\n",
    "none.csv": b"text\n\n",
    "none.jsonl": b"",
    "none.txt": b"",
    "empty.csv": b"",
    "twice.csv": b"text,text\nx,y\n",
    "out.csv": b"id,label\n1,earlier\n",
    "corpus.tsv": b'text\tn\n"x\t1\ny\t2\nz"\t3\n',
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("short.csv out.csv", "short.csv:2: 2 fields where the header has 1"),
        ("body.csv out.csv", "has no column 'text'; it has 'body', 'n'"),
        ("body.jsonl out.csv", "has no column 'text'; it has 'body'"),
        ("body.jsonl out.csv --keep-all", "cannot tell the keys"),
        ("corpus.tsv out.csv", "corpus.tsv:2: a quote opens a field here that swallows rows"),
        ("numbers.parquet out.csv --text name --id lists", "the column 'lists' is List(Int64)"),
        ("in.odd out.csv", "the name tells no format"),
        ("missing.csv out.csv", "missing.csv is missing"),
        ("in.csv out.xlsx", "the name tells no format"),
        ("in.csv in.csv", "the same file"),
        ("none.csv out.csv", "none.csv has no rows"),
        ("none.jsonl out.csv", "none.jsonl has no rows"),
        ("none.txt out.csv", "none.txt has no rows"),
        ("none.txt out.csv --query x", "none.txt has no rows"),
        ("empty.csv out.csv", "empty.csv: the file is empty"),
        ("twice.csv out.csv", "twice.csv:1: the column 'text' is there twice"),
        ("folder.csv out.csv", "folder.csv is no file"),
        ("in.csv folder.csv", "folder.csv cannot be written: there is a folder"),
        ("in.csv in.csv/out.csv", "in.csv/out.csv cannot be written: there is a file"),
        ("numbers.parquet out.csv", "is Int64"),
        ("in.csv out.csv --text-pair text", "was trained on single texts"),
        ("in.csv out.csv --variant int8", "has no int8"),
        ("in.csv out.csv --threshold 2", "--threshold 2.0: Input should be less than or equal to 1"),
        ("in.csv out.csv --batch-rows 0", "--batch-rows 0: Input should be greater than or equal to 1"),
        ("in.csv out.csv --skip -1", "--skip -1: Input should be greater than or equal to 0"),
        ("in.csv out.csv --separator \\t", "--separator '\\\\t': "),
        ('in.csv out.csv --separator "', "must not be a quote or a line end"),
        ("in.csv out.csv --encoding latin-99", "--encoding 'latin-99': "),
        ("in.csv out.csv --encoding rot13", "--encoding 'rot13': "),
    ],
)
def test_what_cannot_be_done_is_an_error_with_its_place_and_leaves_nothing_behind(
    models: Path, folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    Path("folder.csv").mkdir()
    pl.DataFrame({"text": [1], "name": ["x"], "lists": [[1]]}).write_parquet("numbers.parquet")
    assert run(models, *arguments.split()) == 1
    assert message in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {*FILES, "folder.csv", "numbers.parquet"}
    assert all(Path(name).read_bytes() == content for name, content in FILES.items())


def test_where_quotes_mean_nothing_each_line_is_a_row(models: Path, folder: Path) -> None:
    Path("corpus.tsv").write_bytes(FILES["corpus.tsv"])
    assert run(models, "corpus.tsv", "out.csv", "--quote", "none", "--keep", "text") == 0
    assert pl.read_csv("out.csv", quote_char='"')["text"].to_list() == ['"x', "y", 'z"']
    options = ["--quote", "none", "--no-header", "--skip", "1", "--text", "column 1", "--keep", "column 2"]
    assert run(models, "corpus.tsv", "out.csv", *options) == 0
    assert pl.read_csv("out.csv")["column 2"].to_list() == [1, 2, 3]


def test_a_backslash_takes_away_the_meaning_of_a_quote_if_asked_so(models: Path, folder: Path) -> None:
    Path("in.csv").write_text('text\n"x \\"y\\""\n')
    assert run(models, "in.csv", "out.csv", "--escape", "\\", "--keep", "text") == 0
    assert pl.read_csv("out.csv")["text"].to_list() == ['x "y"']


def test_a_column_is_kept_once_and_none_passes_for_a_probability(models: Path, folder: Path) -> None:
    columns = {"text": "x", "^t.*$": "e", "label": "a", "input_label": "b", "ticket_id": "7", "probability_x": "no"}
    pl.DataFrame(columns).write_csv("in.csv")
    assert run(models, "in.csv", "out.csv", "--keep-all", "--id", "ticket_id") == 0
    out = pl.read_csv("out.csv")
    renamed = {"input_label": "a", "input_input_label": "b", "input_probability_x": "no"}
    assert out.columns == [*OWN, "text", "^t.*$", *renamed]
    assert out.select("id", *renamed).row(0) == (7, *renamed.values())
    assert run(models, "in.csv", "out.csv", "--id", "ticket_id", *["--keep", "ticket_id"] * 2) == 0
    assert pl.read_csv("out.csv").columns == [*OWN, "ticket_id"]


def test_a_model_that_is_missing_or_cut_off_is_an_error(
    models: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shutil.copytree(models / "finetuned", folder / "cut" / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "cut" / "exported").mkdir()
    (folder / "cut" / "exported" / "model.onnx").write_bytes(b"\x08\x0a\x12 cut off")
    Path("in.csv").write_text("text\nx\n")
    for model in ("nowhere", "models:/x", "models:/a/b/c", "cut --variant=onnx", "cut --variant=torch"):
        assert main(["in.csv", "out.csv", "--model", *model.split()]) == 1
        assert f"{model.split()[0]} " in capsys.readouterr().err and not list(folder.glob("*.parts"))


def test_without_a_name_the_champion_of_params_predicts_and_a_version_by_its_number(
    models: Path, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.file("in.csv", "text\n" + "\n".join(TEXTS))
    with working_in(project.root) as client:
        assert main(["in.csv", "out.csv"]) == 1
        assert "models:/tests@champion cannot be fetched" in capsys.readouterr().err
        register(client, Package.of_project(models.parent), "tests")
        assert main(["in.csv", "out.csv"]) == main(["in.csv", "one.csv", "--model", "models:/tests/1"]) == 0
    assert run(models, "in.csv", "third.csv") == 0
    names = ("out.csv", "one.csv", "third.csv")
    assert len({Path(name).read_bytes() for name in names}) == 1
    assert len({Path(f"{name}.drift.json").read_bytes() for name in names}) == 1


def test_values_of_every_kind_are_kept_as_they_are(models: Path, folder: Path) -> None:
    values = {"span": [timedelta(1)] * 3, "bytes": [b"\xff", b"", None], "nested": [{"a": [1, None]}] * 3}
    frame = pl.DataFrame({"text": ["x", "y", "z"], "money": [Decimal("1.50")] * 3, **values})
    frame.write_parquet("in.parquet")
    assert run(models, "in.parquet", "out.parquet", "--keep-all", "--batch-rows", "2") == 0
    assert pl.read_parquet("out.parquet").select(frame.columns).equals(frame)
    assert run(models, "in.parquet", "out.csv", "--keep-all") == 0
    assert pl.read_csv("out.csv")["nested"].to_list() == ['{"a": [1, null]}'] * 3, "what CSV cannot hold is JSON there"


def test_finished_parts_are_taken_again_and_others_are_not(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    limit = 99
    plain = Predictor.outputs

    def counted(self: Predictor, texts: list[str], *rest: Any) -> Any:
        if len(asked) == limit:
            raise KeyboardInterrupt
        asked.append(len(texts))
        return plain(self, texts, *rest)

    def predict(most: int, *more: str) -> list[int]:
        """Predict, with an interrupt after so many chunks; return the sizes of the chunks that the model was asked."""
        nonlocal limit
        limit = most
        asked.clear()
        assert run(models, "in.csv", "out.csv", "--batch-rows", "10", *more) == (0 if most > 2 else 130)
        return asked[:]

    monkeypatch.setattr(Predictor, "outputs", counted)
    Path("in.csv").write_text("text\n" + "\n".join(TEXTS))
    assert predict(99) == [10, 10, 4]
    whole = Path("out.csv").read_bytes()
    assert predict(2) == [10, 10] and Path("out.csv").read_bytes() == whole, "it stays until there is a new one"
    assert predict(99) == [4] and Path("out.csv").read_bytes() == whole
    assert "going on after row 20" in capsys.readouterr().out
    predict(2)
    assert predict(99, "--threshold", "0.5") == [10, 10, 4]
    predict(2)
    Path("in.csv").write_text("text\n" + "\n".join([*TEXTS[:12], "another", *TEXTS[13:]]))
    assert predict(99) == [10, 4]
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv", "out.csv", "out.csv.drift.json"]


def test_a_full_disk_is_an_error_and_finished_parts_stay(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("text\n" + "\n".join(TEXTS))

    def full(*_: Any, **__: Any) -> Any:
        raise pl.exceptions.ComputeError("No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(pl.LazyFrame, "sink_csv", full)
        assert run(models, "in.csv", "out.csv") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(folder.glob("out.csv.parts/*.parquet"))
    assert run(models, "in.csv", "out.csv") == 0


def test_a_program_ends_with_a_status_and_leaves_the_signals_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    def raised(error: BaseException) -> Any:
        raise error

    before = signal.getsignal(signal.SIGTERM)
    assert (program("")(lambda: None)(), program("")(lambda: 3)()) == (0, 3)
    assert program("")(raised)(AttuneError("wrong\x1b[31m", "do this")) == 1
    assert capsys.readouterr().err == "wrong⟨U+001B⟩[31m\n  → do this\n"
    assert program("it goes on")(raised)(KeyboardInterrupt()) == 130
    assert "it goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        program("")(signal.raise_signal)(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
