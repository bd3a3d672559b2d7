"""Bad input gets a message that tells what to do, and costs nothing that was made before."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.projects import Project, pipeline_project, tiny

ROWS = "text,label\n" + "\n".join(
    f"{'good' if n % 2 else 'bad'} text number {n} {n * 7919},{'yes' if n % 2 else 'no'}" for n in range(60)
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Project:
    project = pipeline_project(tmp_path_factory.mktemp("bad_input") / "project", downloads)
    project.inbox("rows.csv", ROWS)
    project.use("own-csv")
    project.change(lambda params: params["ingest"]["sources"][0].update(path="data/inbox/rows.csv"))
    project.change(tiny)
    project.change(lambda params: params.update(export={"onnx": False, "int8": False}))
    assert len(project.stages_run(project.repro())) == 8
    return project


def everything_made(project: Project) -> dict[str, str]:
    files = [path for folder in ("data", "models", "reports") for path in (project.root / folder).rglob("*")]
    made = [path for path in files if path.is_file() and "inbox" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in made}


def read(path: str) -> Callable[[Any], None]:
    return lambda params: params["ingest"]["sources"][0].update(path=f"data/inbox/{path}")


CASES: dict[str, tuple[str, Callable[[Any], None], list[str]]] = {
    "missing file": ("", read("gone.csv"), ["data/inbox/gone.csv: no such file", "rows.csv"]),
    "one class only": (
        "text,label\n" + "\n".join(f"row number {n} {n * 7919},same" for n in range(30)),
        read("other.csv"),
        ["only the label 'same'", "two labels"],
    ),
    "a typo in a key": (
        "",
        lambda params: params["finetune"].update(learning_rat=1e-4),
        ["finetune.learning_rat: unknown key; did you mean 'learning_rate'?"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_says_what_to_do_and_costs_nothing(made: Project, case: str) -> None:
    content, change, expected = CASES[case]
    params = (made.root / "params.yaml").read_text(encoding="utf-8")
    before = everything_made(made)
    other = made.inbox("other.csv", content) if content else None
    made.change(change)
    try:
        done = made.repro(check=False)
        assert done.returncode != 0
        assert all(words in done.stderr for words in expected), done.stderr
        assert "Traceback" not in done.stderr
        assert everything_made(made) == before
    finally:
        (made.root / "params.yaml").write_text(params, encoding="utf-8")
        if other:
            other.unlink()


def test_after_all_that_nothing_has_to_run(made: Project) -> None:
    assert made.stages_run(made.repro()) == []


def test_a_failed_gate_ends_with_an_error_only_if_asked(made: Project) -> None:
    params = (made.root / "params.yaml").read_text(encoding="utf-8")
    # words alone tell "good" from "bad": nothing can be above that
    made.change(lambda params: params["register"].update(gates={"beat_baselines": ["tfidf"]}))
    try:
        assert made.repro(check=False).returncode == 0
        report = (made.root / "reports/registration.json").read_text()
        assert '"passed": false' in report and "is not above the baseline's 1.0000" in report
        assert '"promoted": false' in (made.root / "logs/registered.json").read_text()
        made.change(lambda params: params["register"].update(fail_on_gate=True))
        done = made.repro(check=False)
        assert done.returncode != 0
        assert "the model did not pass: beat tfidf" in done.stderr
        assert (made.root / "reports/registration.json").read_text() == report
    finally:
        (made.root / "params.yaml").write_text(params, encoding="utf-8")
