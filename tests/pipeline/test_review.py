"""Reviews by the real program, on a small project with four changes: params, data, code, and versions."""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from flows import review as program
from flows.review import NOT_REPRODUCED
from flows.reviewing.findings import Review
from flows.reviewing.verdict import verdict_of
from tests.pipeline.quick_stages import client, serving
from tests.pipeline.searched import rows
from tests.projects import Project, pipeline_project, tiny

ROWS = 150
OF_REVIEWS = (".attune/worktrees*", ".dvc/cache*", ".dvc/tmp*", ".git/worktrees*", ".git/objects*", "logs/review*")
OF_REVIEWS += ("*__pycache__*",)
PINS = "polars==0.0.1\nfancy-lib==1.0\n"


def small(params: Any) -> None:
    params["ingest"]["sources"] = [{"path": "data/inbox/rows.csv", "columns": {"text": "text", "label": "label"}}]
    tiny(params)
    params["clean"] = {"near_duplicates": {"enabled": False}, "label_issues": {"action": "off"}}
    params["finetune"] |= {"learning_rate": 1.0e-2, "torch_num_threads": 1}
    params["export"] = {"onnx": False, "int8": False}
    params["evaluate"] |= {"baselines": ["majority"], "attributions": {"errors": 0, "sample": 0}}
    params["register"]["gates"] = {"beat_baselines": []}


def commit(project: Project, branch: str, message: str, *, run: bool) -> str:
    """Commit all there is to a new branch, with the results of its pipeline if it is to be run."""
    project.git("checkout", "-q", "-b", branch)
    if run:
        project.repro(OMP_NUM_THREADS="1")
    return project.commit(message)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    address = tmp_path_factory.mktemp("quick") / "socket"
    with serving(address):
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, downloads: Path, quick: Path) -> Project:
    """A project whose pipeline has run, with people's own rows in Git."""
    made = pipeline_project(tmp_path_factory.mktemp("review") / "project", downloads)
    made.file("quick.py", client(quick))
    graph = (made.root / "dvc.yaml").read_text()
    made.file("dvc.yaml", graph.replace("python -m stages.", "python quick.py "))
    made.inbox("rows.csv", "\n".join(["text,label", *rows(ROWS)]) + "\n")
    made.use("own-csv")
    made.change(small)
    made.file("constraints.txt", PINS)
    made.repro(OMP_NUM_THREADS="1")
    made.git("add", "-f", "data/inbox/rows.csv")
    made.commit("results")
    return made


@pytest.fixture
def branch(project: Project) -> Iterator[Project]:
    """The project, for a branch from its first results; main is what is checked out in the end."""
    project.git("checkout", "-q", "main")
    project.dvc("checkout", "-q")
    yield project
    project.git("checkout", "-q", "main")


def reviewed(project: Project, status: int, *arguments: str) -> Review:
    """Run the command; it has to end with this status, and to leave the project as it was."""
    before = project.seen(*OF_REVIEWS)
    with pytest.MonkeyPatch.context() as patch, chdir(project.root):
        for name, value in {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found: list[Review] = []
        patch.setattr(program, "verdict_of", lambda review: found.append(review) or verdict_of(review))
        assert program.main(["--base", "main", *arguments]) == status
    assert project.seen(*OF_REVIEWS) == before
    assert (project.root / "logs" / "review.html").stat().st_size > 10_000
    return found[0]


def ran_again(found: Review) -> list[str]:
    assert found.changes
    return [stage.stage for stage in found.changes.stages if stage.kind == "ran again"]


def test_another_learning_rate_is_reproduced_to_the_byte_and_its_effect_is_told(branch: Project) -> None:
    branch.change(lambda params: params["finetune"].update(learning_rate=1.0e-6))
    commit(branch, "rate", "a smaller learning rate", run=True)
    found = reviewed(branch, 0)
    assert found.rebuild.verdict == "identical"
    assert {check.verdict for check in found.rebuild.outs} == {"identical"}
    assert {"models/finetuned", "data/predictions.parquet"} <= {check.path for check in found.rebuild.outs}
    assert list(found.rebuild.seconds) == list(found.head.graph)
    assert found.changes and [(one.key, one.old, one.new) for one in found.changes.params] == [
        ("finetune.learning_rate", "0.01", "1e-06")
    ]
    assert ran_again(found) == ["finetune", "export", "evaluate", "register"]
    assert found.effect and found.effect.rows > 10
    assert (found.base.results, found.head.results) == ("recorded", "recorded")  # type: ignore[union-attr]


def test_a_code_change_in_clean_that_nobody_ran_is_unrecorded_and_its_effect_that_of_the_rebuild(
    branch: Project,
) -> None:
    path = branch.root / "stages" / "common" / "text" / "steps.py"
    code = path.read_text().replace('UNEVEN = r"', 'UNEVEN = r".|')
    path.write_text(code.replace('strip_chars(" ")', 'strip_chars(" ").str.replace_all("film", "movie")'))
    commit(branch, "code", "another clean", run=False)
    found = reviewed(branch, NOT_REPRODUCED)
    assert (found.rebuild.verdict, found.rebuild.first, found.head.results) == ("unrecorded", "clean", "rebuilt")
    assert "stages/common/text/steps.py" in found.head.stale["clean"]
    assert ran_again(found)[0] == "clean"
    assert found.effect and found.effect.rows > 10
