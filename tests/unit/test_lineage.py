"""Lineage: any registered version shows which commit, data and params made it, and can be restored."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Self

import polars as pl
import pytest
from mlflow import MlflowClient

from flows.lineage import main
from flows.model_versions.versions import find_version
from flows.reporting.reports import SPLIT_FILES
from flows.reviewing.review import lineage_of
from flows.reviewing.revision import Revision
from stages.common.digests import sha256_path
from stages.common.errors import AttuneError
from stages.common.params import load_params, read_yaml
from stages.common.pipeline.graph import read_graph, read_lock
from stages.common.pipeline.stage import Run
from stages.serving.backends import Package
from stages.tracking import provenance
from stages.tracking.live import LiveRun
from stages.tracking.package import PACKAGE_TAG, package_digest
from stages.tracking.provenance import DIRTY_TAG, LINEAGE_TAG, PATCH_TAG, commit_tags
from stages.tracking.publish import publish_live
from stages.tracking.registry import STAMP, Registration, RegistryState
from stages.tracking.runs import MODEL_TAG
from tests.projects import Project
from tests.unit.mlflow_apart import apart

Output, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch

GRAPH = """stages:
  ingest:
    cmd: python stages/ingest/run.py
    deps: [data/inbox, stages/ingest]
    params: [seed, ingest]
    outs: [data/raw/manifest.json]
  clean:
    cmd: python stages/clean/run.py
    deps: [data/raw/manifest.json, stages/clean]
    params: [clean]
    outs: [data/clean/train.parquet, data/clean/validation.parquet, data/clean/test.parquet,
           data/augmented/train.parquet, reports/clean.json]
  finetune:
    cmd: python stages/finetune/run.py
    deps: [data/clean/train.parquet, stages/finetune]
    params: [finetune]
    outs: [models/finetuned]
    plots: [reports/plots/training.csv: {cache: false}]
  evaluate:
    cmd: python stages/evaluate/run.py
    deps: [models/finetuned, data/clean/test.parquet, stages/evaluate]
    params: [evaluate]
    outs: [models/serving]
    metrics: [reports/scores.json: {cache: false}]
  register:
    cmd: python stages/register/run.py
    deps: [models/finetuned, reports/scores.json, stages/register]
    params: [register]
    outs: [reports/registration.json: {cache: false, persist: true},
           reports/model_card.md: {cache: false, persist: true},
           logs/registered.model: {cache: false, persist: true}]
"""
START = """import hashlib, json, shutil
from pathlib import Path
PARAMS, SHADE = Path("params.yaml").read_text(), 0
def put(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
"""
INGEST = """rows = b"".join(file.read_bytes() for file in sorted(Path("data/inbox").glob("*.csv")))
source = {"origin": "data/inbox/rows.csv", "sha256": hashlib.sha256(rows).hexdigest(), "rows_read": 3}
base = {"origin": "scratch", "sha256": {"config.json": "c" * 64, "model.safetensors": "b" * 64}}
put("data/raw/manifest.json", json.dumps({"sources": [source], "base_model": base}).encode())
"""
CLEAN = """for name in ("train", "validation", "test"):
    put(f"data/clean/{name}.parquet", Path("GIVEN.parquet").read_bytes())
put("data/augmented/train.parquet", Path("GIVEN.parquet").read_bytes())
put("reports/clean.json", json.dumps({"splits": {"train": {"rows": 3}}}).encode())
"""
FINETUNE = """shutil.rmtree("models/finetuned", ignore_errors=True)
said = [line for line in PARAMS.split("\\n") if "learning_rate" in line] + [str(SHADE)]
put("models/finetuned/model.safetensors", "\\n".join(said).encode())
put("models/finetuned/vocabulary/words.txt", b"words")
put("reports/plots/training.csv", b"step,epoch,name,value\\n1,0.5,loss,0.7\\n2,1.0,loss,0.6\\n")
"""
EVALUATE = """from stages.common.digests import sha256_path
shutil.rmtree("models/serving", ignore_errors=True)
put("models/serving/decision.json", b'{"labels": ["bad", "good"]}')
digest = sha256_path(Path("models/finetuned"))
scores = {"accuracy": 0.5 + int(digest[:4], 16) / 2**18, "model": {"digest": digest}}
put("reports/scores.json", json.dumps(scores).encode())
"""
REGISTER = "raise SystemExit('no test lets it run')\n"
PARAMS = """task: text-classification
seed: 13
ingest:
  sources: [{path: data/inbox/rows.csv, columns: {text: text, label: label}}]
  base_model: {scratch: {vocab_size: 300}}
clean: {}
finetune:
  learning_rate: 1.0e-3   # it begins with this
evaluate: {}
register: {model_name: films}
tracking: {experiment_name: trials}
"""
IGNORED = "/.attune/\n/data/*\n!/data/inbox/\n/models/\n/logs/\n/mlflow.db\n/mlruns/\n__pycache__\n"


class Lab(Project):
    """A checkout in which models are made and registered."""

    @property
    def client(self) -> MlflowClient:
        """Its MLflow store."""
        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def rate(self, rate: str) -> None:
        """Set the learning rate, which decides what the model is."""
        text = (self.root / "params.yaml").read_text()
        self.file("params.yaml", re.sub(r"learning_rate: \S+", f"learning_rate: {rate}", text))

    def shade(self, number: int) -> None:
        """Change the code of finetune so that it makes another model."""
        text = (self.root / "stages/finetune/run.py").read_text()
        self.file("stages/finetune/run.py", re.sub(r"read_text\(\), \d", f"read_text(), {number}", text))

    def train(self) -> None:
        """Bring all up to date but register, with the training's run in MLflow."""
        with chdir(self.root):
            params = load_params()
            live = LiveRun(params, json.dumps([params.model_dump_json()])[:200], {"attune.threads": "1"})
            self.dvc("repro", "--quiet", "evaluate")
            live.finish(sha256_path(Path("models/finetuned")), [Path("reports/plots/training.csv")])

    def register(self, passed: bool = True) -> RegistryState:
        """Do what register does once it has judged."""
        with chdir(self.root):
            params, package = load_params(), Package.of_project()
            run = Run(read_graph()["register"], params.register_, params, Path(".attune/staging/register"))
            digests = sha256_path(package.model), package_digest(package)
            registration = Registration(params.register_.model_name, *digests, passed, [])
            registration.write(run.output("reports/registration.json"), run.output(str(STAMP)))
            run.output("reports/model_card.md").write_text("# films\n")
            registered = publish_live(run, package.model, registration)
            assert registered is not None
            for out in run.node.outs:
                Path(out).parent.mkdir(exist_ok=True)
                shutil.copyfile(run.staging / out, out)
            shutil.rmtree(run.staging)
            return registered

    def lineage(self, *arguments: str) -> int:
        """Run the program; return its exit status."""
        with chdir(self.root):
            return main([*arguments])

    def copy(self, target: Path) -> Self:
        """Return a copy that a test may do anything to; its store is a copy, too."""
        copy = super().copy(target)
        columns = {"runs": "artifact_uri", "experiments": "artifact_location", "logged_models": "artifact_location"}
        columns["model_versions"] = "storage_location"
        with sqlite3.connect(target / "mlflow.db") as store:
            for table, column in columns.items():
                moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                store.execute(moved, (self.root.as_uri(), target.as_uri()))
        store.close()
        return copy


def make_lab(root: Path) -> Lab:
    """Make a checkout of one commit, in which nothing has run."""
    stages = {"ingest": INGEST, "clean": CLEAN, "finetune": FINETUNE, "evaluate": EVALUATE}
    root.mkdir(parents=True)
    pl.DataFrame({"id": ["a", "b", "c"]}).write_parquet(root / "GIVEN.parquet")
    return Lab(root).begin(
        {
            **{f"stages/{name}/run.py": START + body for name, body in stages.items()},
            "stages/register/run.py": REGISTER,
            "dvc.yaml": GRAPH.replace("python ", f"{sys.executable} "),
            "params.yaml": PARAMS,
            "constraints.txt": "mlflow==1\n",
            "recipes/films.yaml": "seed: 1\n",
            ".gitignore": IGNORED,
            "data/inbox/.gitignore": "*\n!.gitignore\n",
            "data/inbox/rows.csv": "text,label\na,b\n",
        }
    )


UP_TO_DATE = "all is as dvc.lock says: no stage would have to run there"


@pytest.fixture(autouse=True)
def _apart(monkeypatch: Patch) -> None:
    apart(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Version 1: of code and params that no commit has. Version 2: of later ones, committed."""
    with pytest.MonkeyPatch.context() as patch:
        apart(patch)
        lab = make_lab(tmp_path_factory.mktemp("lineage") / "home")
        lab.shade(7)
        lab.rate("2.0e-3")
        lab.train()
        lab.register()
        lab.rate("3.0e-3")
        lab.shade(8)
        lab.commit()
        lab.train()
        lab.register()
        yield lab


@pytest.fixture
def lab(trained: Lab, tmp_path: Path) -> Lab:
    """A copy of both versions, for a test of its own."""
    return trained.copy(tmp_path / "home")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def words(number: int, rate: str) -> dict[str, bytes]:
    """What finetune writes."""
    weights = f"  learning_rate: {rate}   # it begins with this\n{number}".encode()
    return {"model.safetensors": weights, "vocabulary/words.txt": b"words"}


# ── restoring a version ─────────────────────────────────────────────────────────────────────────────────────────────
def test_a_version_that_no_commit_has_comes_back(lab: Lab, tmp_path: Path, capsys: Output) -> None:
    status, before = lab.git("status", "--porcelain"), lab.seen()
    assert lab.lineage("films/1", "--restore", "../old") == 0
    old = tmp_path / "old"
    assert contents(old / "models/finetuned") == words(7, "2.0e-3")
    assert "# it begins with this" in (old / "params.yaml").read_text(), "comments and all"
    assert Project(old).dvc("status") == "Data and pipelines are up to date."
    package = lab.client.get_model_version("films", "1").tags[PACKAGE_TAG]
    assert (old / "logs/registered.model").read_text() == f"films {package}\n"
    assert UP_TO_DATE in capsys.readouterr().out
    assert lab.seen() == before
    assert lab.git("status", "--porcelain") == status


def test_a_remote_or_the_registry_has_what_the_cache_lacks(lab: Lab, tmp_path: Path, capsys: Output) -> None:
    lab.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    lab.dvc("push", "--quiet")  # the data of both versions, and the model of the second
    shutil.rmtree(lab.root / ".dvc/cache")
    assert lab.lineage("1", "--restore", "../old") == 0
    printed = capsys.readouterr().out
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")
    assert "from the registry, since DVC does not have it: models/finetuned" in printed and UP_TO_DATE in printed


def test_a_damaged_cache_restores_no_other_model(lab: Lab, tmp_path: Path) -> None:
    name = md5(words(7, "2.0e-3")["model.safetensors"]).hexdigest()
    file = lab.root / ".dvc/cache/files/md5" / name[:2] / name[2:]
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    file.chmod(0o444)  # DVC believes the names of files that nobody may write
    assert lab.lineage("1", "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")


def test_a_model_that_nobody_has_is_said_to_be_missing(lab: Lab, tmp_path: Path, capsys: Output) -> None:
    shutil.rmtree(lab.root / ".dvc/cache")
    shutil.rmtree(lab.root / "mlruns/models")
    assert lab.lineage("1", "--restore", "../old") == 1
    printed = capsys.readouterr().out
    assert "missing: models/finetuned" in printed and f"cd {tmp_path}/old && make run" in printed
    assert (tmp_path / "old/stages/finetune/run.py").exists()


@pytest.mark.parametrize(
    "why", ["is not the version's model", "do not apply to", f"neither this clone nor origin has the commit {'0' * 40}"]
)
def test_a_restore_that_fails_leaves_nothing(lab: Lab, tmp_path: Path, capsys: Output, why: str) -> None:
    if "model" in why:
        lab.client.set_model_version_tag("films", "1", MODEL_TAG, "f" * 64)
    elif "clone" in why:
        lab.client.set_model_version_tag("films", "1", "attune.commit", "0" * 40)
    else:
        (patch,) = lab.root.glob("mlruns/*/artifacts/lineage/*.patch")
        patch.write_text(patch.read_text().replace("-PARAMS", "-OTHER"))
    assert lab.lineage("1", "--restore", "../old") == 1
    error = capsys.readouterr().err
    assert why in error and "→" in error
    assert not (tmp_path / "old").exists()
    assert lab.git("worktree", "list").count("\n") == 0


def test_a_folder_that_holds_something_is_left_alone(lab: Lab, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/mine.txt").write_text("mine")
    for place, why in {"../old": "holds something already", "inside": "lies in the checkout"}.items():
        assert lab.lineage("1", "--restore", place) == 1
        assert why in capsys.readouterr().err
    assert contents(tmp_path / "old") == {"mine.txt": b"mine"}
    assert not (lab.root / "inside").exists()


def test_a_commit_that_a_shallow_clone_lacks_is_fetched(lab: Lab, tmp_path: Path) -> None:
    lab.commit(**{"later.txt": "later"})
    subprocess.run(["git", "clone", "-q", "--depth=1", lab.root.as_uri(), str(tmp_path / "clone")], check=True)
    clone = replace(lab, root=tmp_path / "clone")
    shutil.copytree(lab.root / "mlruns", clone.root / "mlruns")
    shutil.copyfile(lab.root / "mlflow.db", clone.root / "mlflow.db")
    assert clone.lineage("1", "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")


def test_a_pulled_model_is_of_the_recording_commit(
    lab: Lab, tmp_path: Path, capsys: Output, monkeypatch: Patch
) -> None:
    """A fresh clone, whose models came with dvc pull."""
    lab.git("add", "-f", "dvc.lock", "reports")
    recording = lab.commit()
    lab.commit(**{"later.txt": "later", "reports/scores.json": "{}"})
    lab.git("checkout", "-q", recording, "--", "reports")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    shutil.rmtree(lab.root / ".attune/trainings")
    number = str(lab.register().version)
    assert lab.lineage(number) == 0
    assert f"commit       {recording}" in capsys.readouterr().out


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_version_shows_what_made_it(trained: Lab, capsys: Output) -> None:
    assert trained.lineage("films/2") == 0
    printed = capsys.readouterr().out
    commit, split = f"commit       {trained.git('rev-parse', 'HEAD')}", "data/clean/train.parquet"
    digest = next(out["md5"] for out in read_lock(trained.root)["clean"]["outs"] if out["path"] == split)
    parts = ("attune.dirty false", "data/inbox/rows.csv", "b" * 64, "test_accuracy 0.", "restored-2")
    for part in (commit, f"{split} {digest}", *parts):
        assert part in printed, part
    assert "register.model_name" not in printed
    assert trained.lineage("--params", "@champion") == 0
    printed = capsys.readouterr().out
    assert "films version 1" in printed and "register.model_name films" in printed


@pytest.mark.parametrize("asked", ["films", "flims/1", "@nobody", "films/9"])
def test_what_names_no_version_is_an_error(trained: Lab, asked: str) -> None:
    with pytest.raises(AttuneError) as error:
        find_version(trained.client, asked, "films")
    assert "make champion" in error.value.fix or "write NAME@champion" in error.value.fix


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("sqlite:///none.db", "no store yet"),
        ("postgresql+nodriver://u:pa55word@h/db", "cannot be asked"),
        ("http://u:pa55word@127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_asking_makes_no_store(trained: Lab, capsys: Output, monkeypatch: Patch, address: str, why: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert trained.lineage("1") == 1
    error = capsys.readouterr().err
    assert why in error and "→" in error and "pa55word" not in error
    facts, problem = lineage_of(revision(trained), address)
    assert "model" in dict(facts) and "MLflow run" not in dict(facts) and "pa55word" not in problem
    assert not (trained.root / "none.db").exists()


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_only_code_and_configuration_make_a_checkout_dirty(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "home")
    with chdir(lab.root):
        lab.file("data/inbox/more.csv", "x")
        lab.file("notes.txt", "x")
        lab.file("dvc.lock", "x")
        tags = commit_tags()
        assert (tags[DIRTY_TAG], tags[PATCH_TAG], tags["mlflow.source.git.branch"]) == ("false", "none", "main")
        lab.file("stages/clean/new.py", "x")
        tags = commit_tags()
        assert tags[DIRTY_TAG] == "true"
        assert tags[PATCH_TAG] == "not kept: new files, which Git does not track: stages/clean/new.py"


def test_git_that_fails_is_a_warning_in_its_own_words_and_without_git_there_is_none(
    tmp_path: Path, capsys: Output, monkeypatch: Patch
) -> None:
    lab = Project(tmp_path / "home").begin({"a": "a"})
    monkeypatch.chdir(lab.root)
    refused = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}  # as in a mounted checkout
    for environment, broken, words in (
        (refused, {}, f"git config --global --add safe.directory {lab.root}"),
        ({}, {".git/HEAD": ""}, "not a git repository"),
        ({}, {".git": "gitdir: /gone"}, "not a git repository: /gone"),
    ):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            for name, content in broken.items():
                if (lab.root / name).is_dir():
                    shutil.rmtree(lab.root / name)
                lab.file(name, content)
            assert commit_tags() == commit_tags() == {}
        said = capsys.readouterr().err
        assert words in said and said.count("warning: Git fails") == 1
    (lab.root / ".git").unlink()
    assert commit_tags() == {}
    lab.git("init", "-q")
    assert commit_tags() == {}, "before the first commit"
    monkeypatch.setenv("PATH", "")
    assert commit_tags() == {}
    assert capsys.readouterr().err == ""


def test_a_patch_applies_whatever_a_persons_git_settings_are(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "home")
    (lab.root / "recipes/films.yaml").write_bytes(bytes(range(256)))
    (lab.root / "stages/register/run.py").unlink()
    lab.file("stages/clean/new.py", "new\n")
    lab.git("add", "stages/clean/new.py")
    lab.rate("9.0e-9")
    for setting in ("diff.noprefix true", "diff.context 0", "diff.mnemonicPrefix true", "color.ui always"):
        lab.git("config", *setting.split())
    with chdir(lab.root):
        (name,) = re.findall("^kept as ([0-9a-f]{12})$", commit_tags()[PATCH_TAG])
    lab.git("worktree", "add", "-q", "--detach", str(tmp_path / "clean"), "HEAD")
    patch = lab.root / f".attune/patches/{name}.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=tmp_path / "clean", check=True)
    assert contents(tmp_path / "clean/recipes") == contents(lab.root / "recipes")
    assert contents(tmp_path / "clean/stages") == contents(lab.root / "stages")
    assert "9.0e-9" in (tmp_path / "clean/params.yaml").read_text()


@pytest.mark.parametrize(
    ("line", "why"), [("postgresql://me:hunter22@db/films", "looks like a key"), ("x" * 1000, "1,000")]
)
def test_no_secret_and_no_large_patch_is_kept(tmp_path: Path, monkeypatch: Patch, line: str, why: str) -> None:
    monkeypatch.setattr(provenance, "LARGEST_PATCH", 1000)
    lab = make_lab(tmp_path / "home")
    lab.file("stages/clean/run.py", f"# {line}\n")
    with chdir(lab.root):
        tag = commit_tags()[PATCH_TAG]
    assert tag.startswith("not kept: ") and why in tag
    assert not (lab.root / ".attune/patches").exists()


def test_what_is_kept_is_what_the_training_began_with(lab: Lab, tmp_path: Path, capsys: Output) -> None:
    """Code and params are edited while it trains, and put back before the model is registered."""
    lab.shade(1)
    lab.rate("4.0e-3")
    lab.train()
    lab.git("checkout", "-q", "--", "stages")
    lab.rate("1.0")
    number = lab.register(passed=False).version
    assert lab.lineage(str(number), "--restore", "../old") == 0
    restored = (tmp_path / "old/params.yaml").read_text()
    assert "learning_rate: 4.0e-3" in restored or "learning_rate: 0.004" in restored
    assert UP_TO_DATE in capsys.readouterr().out


def test_no_lineage_is_kept_from_a_lock_of_another_model(lab: Lab) -> None:
    for number, kept in (("2", True), ("1", False)):
        model = find_version(lab.client, number, "films").model
        lab.client.delete_model_version_tag("films", number, LINEAGE_TAG)
        with chdir(lab.root):
            reports = {path.as_posix(): path for path in Path("reports").rglob("*") if path.is_file()}
            provenance.keep_lineage(lab.client, "films", int(number), model, reports)
        assert (LINEAGE_TAG in find_version(lab.client, number, "films").tags) is kept


# ── for a review ────────────────────────────────────────────────────────────────────────────────────────────────────
def revision(lab: Lab) -> Revision:
    data = read_yaml(lab.root / "params.yaml")
    return Revision("HEAD", "c" * 40, "mine", lab.root, read_graph(lab.root), read_lock(lab.root), data)


def test_a_review_gets_data_base_model_run_and_versions(trained: Lab) -> None:
    lineage, problem = lineage_of(revision(trained), f"sqlite:///{trained.root / 'mlflow.db'}")
    facts = dict(lineage)
    assert {"data/inbox/rows.csv", *SPLIT_FILES} < facts.keys()
    version = find_version(trained.client, "2", "films")
    assert version.run and facts["MLflow run"] == version.run.info.run_id
    assert (facts["base model"], facts["its weights"], problem) == ("scratch", "b" * 64, "")
    assert facts["registered as"].split() == ["films", "version", "2"]
