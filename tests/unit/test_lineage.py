"""Lineage: any registered version says which commit, data and params made it, and can be had again byte for byte."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_lineage import Lab, apart, make_lab

from flows.provenance.lineage import lineage_of
from flows.provenance.versions import find_version
from flows.reviewing.revision import Revision
from stages.common.errors import AttuneError
from stages.common.graph import read_graph, read_lock
from stages.common.params.loading import read_yaml
from stages.common.tracking import making
from stages.common.tracking.checkout import COMMIT_TAG, DIRTY_TAG, SOURCES, commit_tags, difference_from
from stages.common.tracking.live import LiveRun
from stages.common.tracking.making import MAKING_TAG, PATCH_TAG
from stages.common.tracking.packaging import PACKAGE_TAG
from stages.common.tracking.runs import MODEL_TAG, model_digest
from tests.unit.small_checkout import dvc

UP_TO_DATE = "Data and pipelines are up to date."


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    apart(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Version 1: of code and params that no commit has. Version 2: of later ones, committed."""
    with pytest.MonkeyPatch.context() as patch:
        apart(patch)
        lab = make_lab(tmp_path_factory.mktemp("lineage") / "home")
        shade(lab, 7)
        lab.write("stages/finetune/new.py", "# no commit has it\n")
        lab.rate("2.0e-3")
        lab.train()
        lab.register()
        lab.rate("3.0e-3")
        shade(lab, 8)
        lab.commit()
        lab.train()
        lab.register()
        yield lab


@pytest.fixture
def lab(trained: Lab, tmp_path: Path) -> Lab:
    """A copy of both versions, for a test of its own."""
    return trained.copy(tmp_path / "home")


def shade(lab: Lab, number: int) -> None:
    """Change the code of finetune so that it makes another model."""
    text = (lab.root / "stages/finetune/run.py").read_text()
    lab.write("stages/finetune/run.py", re.sub(r"read_text\(\), \d", f"read_text(), {number}", text))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def words(number: int, rate: str) -> dict[str, bytes]:
    """What finetune writes."""
    said = f"  learning_rate: {rate}   # it begins with this\n{number}".encode()
    return {"model.safetensors": said, "vocabulary/words.txt": b"words"}


# ── having a version again ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_that_no_commit_has_comes_back_byte_for_byte(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, before = lab.git("status", "--porcelain"), lab.seen()
    assert lab.lineage("films/1", "--restore", "../old") == 0
    old = tmp_path / "old"
    assert contents(old / "models/finetuned") == words(7, "2.0e-3")
    assert (old / "stages/finetune/new.py").read_text() == "# no commit has it\n"
    assert "# it begins with this" in (old / "params.yaml").read_text(), "comments and all"
    assert dvc(old, "status").strip() == UP_TO_DATE
    package = lab.client.get_model_version("films", "1").tags[PACKAGE_TAG]
    assert (old / "logs/registered.model").read_text() == f"films {package}\n"
    assert "finds nothing to do" in capsys.readouterr().out
    assert lab.seen() == before
    assert lab.git("status", "--porcelain") == status
    assert lab.lineage("@champion", "--restore", "../same") == 0  # version 1, too: no gate was asked since
    assert contents(tmp_path / "same/models") == contents(old / "models")


def test_a_committed_version_comes_back_without_a_patch(lab: Lab, tmp_path: Path) -> None:
    assert lab.lineage("2", "--restore", "../new") == 0
    assert contents(tmp_path / "new/models/finetuned") == words(8, "3.0e-3")
    assert dvc(tmp_path / "new", "status").strip() == UP_TO_DATE
    tags = lab.client.get_model_version("films", "2").tags
    assert tags[PATCH_TAG] == "none"


def test_what_dvc_has_no_more_comes_from_the_registry(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(lab.root / ".dvc/cache")
    assert lab.lineage("1", "--restore", "../old") == 0
    said = capsys.readouterr().out
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")
    assert "from the registry, since DVC does not have it as recorded: models/finetuned, models/serving" in said
    assert "data/clean/train.parquet" in said and "make run" in said
    assert "models" not in "".join(line for line in dvc(tmp_path / "old", "status").split("\n") if "not in" in line)


def test_a_model_that_is_not_the_versions_is_an_error(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.client.set_model_version_tag("films", "1", MODEL_TAG, "f" * 64)
    assert lab.lineage("1", "--restore", "../old") == 1
    assert "is not the version's model" in capsys.readouterr().err


def test_a_model_that_is_nowhere_is_an_error(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(lab.root / ".dvc/cache")
    shutil.rmtree(lab.root / "mlruns/models")
    assert lab.lineage("1", "--restore", "../old") == 1
    assert "came back from nowhere" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_left_alone(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/mine.txt").write_text("mine")
    assert lab.lineage("1", "--restore", "../old") == 1
    assert "holds something already" in capsys.readouterr().err
    assert contents(tmp_path / "old") == {"mine.txt": b"mine"}
    assert lab.lineage("1", "--restore", "inside") == 1
    assert "lies in the checkout" in capsys.readouterr().err
    assert not (lab.root / "inside").exists()


def test_a_restore_that_was_killed_can_be_begun_again(lab: Lab, tmp_path: Path) -> None:
    """`git worktree add` was killed at work, and its owner removed the folder: Git holds its place locked."""
    lab.git("worktree", "add", "--detach", "--lock", str(tmp_path / "old"), "HEAD")
    shutil.rmtree(tmp_path / "old")
    assert lab.lineage("1", "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")


def test_a_commit_that_a_shallow_clone_lacks_is_fetched(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.commit(**{"later.txt": "later"})
    commit = lab.client.get_run(find_version(lab.client, "1", "films").run or "").data.tags[COMMIT_TAG]
    subprocess.run(["git", "clone", "-q", "--depth=1", lab.root.as_uri(), str(tmp_path / "clone")], check=True)
    clone = replace(lab, root=tmp_path / "clone")
    shutil.copytree(lab.root / "mlruns", clone.root / "mlruns")
    shutil.copyfile(lab.root / "mlflow.db", clone.root / "mlflow.db")
    clone.git("remote", "rename", "origin", "elsewhere")
    assert clone.lineage("1") == 0
    assert "this clone does not have its commit" in capsys.readouterr().out
    assert clone.lineage("1", "--restore", "../old") == 1
    assert commit in capsys.readouterr().err
    clone.git("remote", "rename", "elsewhere", "origin")
    assert clone.lineage("1", "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")
    assert clone.git("log", "--oneline").count("\n") == 0, "the clone is as shallow as it was"


def test_a_patch_that_reaches_beyond_code_and_configuration_is_refused(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept,) = lab.root.glob("mlruns/*/artifacts/lineage/*/uncommitted.patch")
    added = "diff --git a/sitecustomize.py b/sitecustomize.py\nnew file mode 100644\n--- /dev/null\n"
    kept.write_text(kept.read_text() + added + "+++ b/sitecustomize.py\n@@ -0,0 +1 @@\n+import os\n")
    assert lab.lineage("1", "--restore", "../old") == 1
    assert "sitecustomize.py, which is no code of a stage" in capsys.readouterr().err
    assert not (tmp_path / "old").exists()
    assert lab.git("worktree", "list").count("\n") == 0


def test_a_patch_that_leads_out_of_the_folder_by_a_link_is_refused(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the registry hands out next would be written where the link leads."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/rc").write_text("precious")
    (kept,) = lab.root.glob("mlruns/*/artifacts/lineage/*/uncommitted.patch")
    mine = lab.git("show", f"{lab.client.get_model_version('films', '1').tags['attune.commit']}:params.yaml")
    for link, target in (("params.yaml", "../victim/rc"), ("stages/x", str(tmp_path / "victim"))):
        kept.write_text(link_patch(link, target, f"{mine}\n" if link == "params.yaml" else ""))
        assert lab.lineage("1", "--restore", "../old") == 1
        assert f"the patch makes {link} a link that leads elsewhere" in capsys.readouterr().err
        assert not (tmp_path / "old").exists()
    assert contents(tmp_path / "victim") == {"rc": b"precious"}


def link_patch(path: str, target: str, before: str) -> str:
    """A patch that makes a link, in the place of a file if there is one."""
    gone = ""
    if before:
        lines = before.removesuffix("\n").split("\n")
        removed = "".join(f"-{line}\n" for line in lines)
        gone = f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n--- a/{path}\n+++ /dev/null\n"
        gone += f"@@ -1,{len(lines)} +0,0 @@\n{removed}"
    made = f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
    return f"{gone}{made}@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"


def test_nothing_but_outs_of_the_stages_is_written_and_those_in_the_folder_alone(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kept dvc.lock may call anything an out."""
    version = lab.client.get_model_version("films", "2")
    kept = lab.root / "mlruns" / (version.run_id or "") / "artifacts" / version.tags[MAKING_TAG]
    (kept / "stages").mkdir()
    (kept / "stages/sitecustomize.py").write_text("evil")
    text = (kept / "dvc.lock").read_text()
    claim = f"- path: stages/sitecustomize.py\n      md5: {md5(b'evil').hexdigest()}\n    "
    assert "    outs:\n    - path: data/raw/manifest.json" in text
    (kept / "dvc.lock").write_text(text.replace("    outs:\n    ", f"    outs:\n    {claim}", 1))
    assert lab.lineage("2", "--restore", "../old") == 0
    assert not (tmp_path / "old/stages/sitecustomize.py").exists()
    commit = lab.git("rev-parse", "HEAD")
    graph = (lab.root / "dvc.yaml").read_text()
    capsys.readouterr()
    for evil in (
        graph.replace("- data/clean/train.parquet\n", "- ../victim/train.parquet\n"),
        graph.replace("  clean:\n", "  clean:\n    wdir: ..\n"),
        graph.replace("- data/clean/train.parquet\n", "- .git/hooks/train.parquet\n"),
    ):
        assert evil != graph
        lab.write("dvc.yaml", evil)
        found = changed(lab, commit)
        (kept / "uncommitted.patch").write_bytes(found)
        assert lab.lineage("2", "--restore", "../evil") == 1
        error = capsys.readouterr().err
        assert "→" in error and "Traceback" not in error
        assert not (tmp_path / "evil").exists()
        assert not (tmp_path / "victim").exists()


def changed(lab: Lab, commit: str) -> bytes:
    with chdir(lab.root):
        found = difference_from(commit)
    assert found is not None
    return found.patch


def test_data_that_was_changed_in_dvcs_cache_is_found(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = read_md5(lab, "clean", "data/clean/train.parquet")  # of all three splits
    spoil(lab, named)
    assert lab.lineage("2", "--restore", "../old") == 0
    said = capsys.readouterr().out
    assert "finds nothing to do" not in said
    assert "data/clean/train.parquet is not what dvc.lock says" in said
    assert f"rm -f {lab.root}/.dvc/cache/files/md5/{named[:2]}/{named[2:]}" in said


def test_weights_that_were_changed_in_dvcs_cache_come_from_the_registry(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = md5(words(7, "2.0e-3")["model.safetensors"]).hexdigest()
    wrong = spoil(lab, named)
    before = wrong.read_bytes()
    assert lab.lineage("1", "--restore", "../old") == 0
    said = capsys.readouterr().out
    assert contents(tmp_path / "old/models/finetuned") == words(7, "2.0e-3")
    assert "from the registry, since DVC does not have it as recorded: models/finetuned" in said
    assert f"rm -f {wrong}" in said
    assert wrong.read_bytes() == before, "what all checkouts share is mended by people"


def spoil(lab: Lab, name: str) -> Path:
    """Change a byte of a file of the cache, which stays write-protected: DVC believes its name."""
    file = lab.root / ".dvc/cache/files/md5" / name[:2] / name[2:]
    mode, content = file.stat().st_mode, bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(0o444)
    assert mode & 0o222 == 0
    return file


def test_no_advice_removes_what_no_restore_left(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.git("worktree", "add", "--detach", str(tmp_path / "mine"), "HEAD")
    linked = replace(lab, root=tmp_path / "mine")
    for place in (".", str(lab.root), "..", str(Path.home())):
        assert linked.lineage("2", "--restore", place) == 1
        error = capsys.readouterr().err
        assert "name a folder" in error and "worktree remove" not in error
    lab.client.set_model_version_tag("films", "1", MODEL_TAG, "f" * 64)
    assert lab.lineage("1", "--restore", "../broken off") == 1
    assert lab.lineage("1", "--restore", "../broken off") == 1
    command = f"git worktree remove --force --force '{tmp_path}/broken off'"
    assert command in capsys.readouterr().err
    assert lab.lineage("2", "--restore", "../whole") == 0
    assert lab.lineage("2", "--restore", "../whole") == 1
    assert "worktree remove" not in capsys.readouterr().err


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_says_what_made_it(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.git("add", "-f", "dvc.lock", "reports")
    recording = lab.commit()
    assert lab.lineage("films/2") == 0
    said = capsys.readouterr().out
    head = lab.git("rev-parse", "HEAD~")[:10]
    for part in (
        *("films version 2", f"{head} on main  mine", "clean", f"{recording[:10]} of", "data/inbox/rows.csv, 3 rows"),
        *(f"md5 {read_md5(lab, 'clean', 'data/clean/train.parquet')}", f"sha256 {'b' * 64}", "those of films, but"),
        *("finetune.learning_rate: 0.003 (recipe: 0.001)", "accuracy 0.", "--restore ../films-2"),
    ):
        assert part in said, part
    assert lab.lineage("1") == 0
    assert "with uncommitted changes, which are kept" in capsys.readouterr().out


def read_md5(lab: Lab, stage: str, path: str) -> str:
    return next(out["md5"] for out in read_lock(lab.root)[stage]["outs"] if out["path"] == path)


def test_json_says_the_same_to_programs(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.lineage("1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differing"] == {"finetune.learning_rate": {"recipe": "0.001", "version": "0.002"}}
    assert said["data"]["splits"]["data/clean/test.parquet"] == read_md5(lab, "clean", "data/clean/test.parquet")
    assert said["aliases"] == ["champion"]
    assert said["missing"] == []


def test_a_version_from_before_answers_as_far_as_it_can(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.git("add", "-f", "dvc.lock", "reports")
    recording = lab.commit()
    for key in (MAKING_TAG, PATCH_TAG, "attune.commit"):
        lab.client.delete_model_version_tag("films", "2", key)
    assert lab.lineage("2") == 0
    said = capsys.readouterr().out
    assert "registered before versions kept them" in said
    assert f"{recording[:10]} of" in said, "found by the digest in reports/metrics.json"
    assert "finetune.learning_rate: 0.003" in said
    assert lab.lineage("2", "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(8, "3.0e-3")


def test_publishing_gives_such_a_version_what_it_lacks_while_the_files_are_there(lab: Lab) -> None:
    for key in (MAKING_TAG, PATCH_TAG):
        lab.client.delete_model_version_tag("films", "2", key)
    for number, there in (("2", True), ("1", False)):
        before = dict(lab.client.get_model_version("films", number).tags)
        if MAKING_TAG in before:
            lab.client.delete_model_version_tag("films", number, MAKING_TAG)
        with chdir(lab.root):
            version = find_version(lab.client, number, "films")
            making.keep_making(lab.client, "films", int(number), version.run or "", "0" * 64, reports_here())
        assert (MAKING_TAG in lab.client.get_model_version("films", number).tags) is there


def reports_here() -> dict[str, Path]:
    return {path.as_posix(): path for path in Path("reports").rglob("*") if path.is_file()}


def test_hostile_names_command_no_terminal(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;taken\x07\u202e[red]x[/red]"
    version = find_version(lab.client, "1", "films")
    assert version.run
    for key in ("mlflow.runName", "mlflow.source.git.branch", "attune.recipe"):
        lab.client.set_tag(version.run, key, hostile)
    lab.client.set_model_version_tag("films", "1", "attune.demoted", hostile)
    lab.client.set_model_version_tag("films", "1", "attune.commit", f"--output={lab.root}/x")
    assert lab.lineage("1") == 0
    said = capsys.readouterr().out
    assert "\x1b]" not in said and "\u202e" not in said and "\x07" not in said
    assert "[red]x[/red]" in said
    assert lab.lineage("1", "--restore", "../old") == 1
    assert "nobody knows the commit" in capsys.readouterr().err
    for asked in (f"{hostile}/1", f"{hostile}@champion", "a b", "films/0", "@nobody"):
        assert lab.lineage(asked) == 1
        error = capsys.readouterr().err
        assert "\x1b" not in error and "→" in error


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_code_and_configuration_make_a_checkout_dirty(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "home")
    with chdir(lab.root):
        lab.write("data/inbox/more.csv", "x")
        lab.write("notes.txt", "x")
        lab.write("dvc.lock", "x")
        assert commit_tags()[DIRTY_TAG] == "false"
        assert commit_tags()["mlflow.source.git.branch"] == "main"
        lab.write("stages/clean/new.py", "x")
        assert commit_tags()[DIRTY_TAG] == "true"
    with chdir(tmp_path):
        assert commit_tags() == {}, "no Git here"


def test_a_patch_has_new_files_and_neither_data_nor_secrets_and_leaves_no_trace(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "home")
    commit = lab.git("rev-parse", "HEAD")
    lab.write("stages/clean/new.py", "new\n")
    (lab.root / "recipes/films.yaml").write_bytes(bytes(range(256)))
    for name in (
        "clean/.env",
        ".env.local",
        "credentials.json",
        "clean/id_rsa",
        "clean/my_secret.py",
        "clean/rows.csv",
    ):
        lab.write(f"stages/{name}", "geheim\n")
    (lab.root / "stages/register/run.py").unlink()
    lab.rate("9.0e-9")
    lab.git("config", "diff.noprefix", "true")
    objects = len(list((lab.root / ".git/objects").rglob("*")))
    with chdir(lab.root):
        found = difference_from(commit)
        assert found is not None and found == difference_from(commit)
        assert difference_from("0" * 40) is None
    patch = found.patch
    named = set(re.findall(rb"^diff --git a/(\S+)", patch, re.MULTILINE))
    assert named == {b"stages/clean/new.py", b"recipes/films.yaml", b"stages/register/run.py", b"params.yaml"}
    assert len(found.left_out) == 6
    assert b"geheim" not in patch and b"secret" not in patch
    assert len(list((lab.root / ".git/objects").rglob("*"))) == objects
    assert lab.git("diff", "--cached", "--name-only") == ""
    subprocess.run(["git", "stash", "-qu", "--", *SOURCES[:4]], cwd=lab.root, check=True, env=who())
    subprocess.run(["git", "apply", "-"], cwd=lab.root, input=patch, check=True)
    assert (lab.root / "recipes/films.yaml").read_bytes() == bytes(range(256))
    assert not (lab.root / "stages/register/run.py").exists()


def who() -> dict[str, str]:
    names = {f"GIT_{one}_{what}": "me" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return os.environ | names


def test_code_that_changed_since_the_training_is_not_taken_for_what_trained(lab: Lab) -> None:
    shade(lab, 1)
    lab.rate("4.0e-3")
    lab.train()
    shade(lab, 2)
    number = lab.register(passed=False).version
    said = lab.client.get_model_version("films", str(number)).tags[PATCH_TAG]
    assert said == "not kept: changed since the training: stages/finetune"


def test_code_that_was_put_back_makes_no_version_clean(lab: Lab) -> None:
    shade(lab, 4)
    lab.write("stages/common/used.py", "# by all stages, and named as a dependency by none\n")
    lab.train()
    lab.git("checkout", "-q", "--", "stages")
    (lab.root / "stages/common/used.py").unlink()
    number = lab.register(passed=False).version
    version = find_version(lab.client, str(number), "films")
    assert version.state.startswith("with uncommitted changes, not kept")


@pytest.mark.parametrize("path", ["stages/common/used.py", "constraints.txt", "recipes/films.yaml"])
def test_a_patch_is_kept_only_if_the_training_had_it(lab: Lab, path: str) -> None:
    """DVC knows of no stage that depends on these."""
    lab.rate("5.0e-3")
    lab.write(path, (lab.root / "recipes/films.yaml").read_text() + "\n# trained with this\n")
    lab.train()
    lab.write(path, (lab.root / path).read_text().replace("with", "without"))
    number = lab.register(passed=False).version
    assert lab.client.get_model_version("films", str(number)).tags[PATCH_TAG].startswith("not kept: code or config")


def test_other_params_alone_are_kept_without_a_patch(lab: Lab) -> None:
    lab.rate("6.0e-3")
    lab.train()
    lab.git("checkout", "-q", "--", "params.yaml")
    number = lab.register(passed=False).version
    version = find_version(lab.client, str(number), "films")
    assert version.state == "with uncommitted changes, which are kept: params.yaml alone was another"


def test_code_of_later_stages_may_change_until_they_run(lab: Lab) -> None:
    shade(lab, 5)
    with chdir(lab.root):
        live = LiveRun(lab.params, "later", {})
        dvc(lab.root, "repro", "--quiet", "finetune")
        lab.write("stages/evaluate/new.py", "# for evaluate\n")
        dvc(lab.root, "repro", "--quiet", "evaluate")
        live.finish(model_digest(Path("models/finetuned")), [])
    number = lab.register(passed=False).version
    assert lab.client.get_model_version("films", str(number)).tags[PATCH_TAG] == "kept"


def test_a_patch_with_a_secret_or_beside_a_repository_is_not_kept(lab: Lab) -> None:
    shade(lab, 6)
    lab.write("stages/common/call.py", 'password = "hunter2hunter2"\n')
    lab.train()
    number = lab.register(passed=False).version
    said = lab.client.get_model_version("films", str(number)).tags[PATCH_TAG]
    assert said == "not kept: a line of it looks like a password or a key"
    lab.git("init", "-q", "stages/nested")
    lab.write("stages/nested/code.py", "x")
    shade(lab, 9)
    lab.train()
    number = lab.register(passed=False).version
    said = lab.client.get_model_version("films", str(number)).tags[PATCH_TAG]
    assert said == "not kept: stages/nested is a Git repository of its own"


def test_a_model_of_unknown_beginning_names_no_commit_but_those_that_recorded_it(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh clone, whose models came with dvc pull."""
    lab.git("add", "-f", "dvc.lock", "reports")
    recording = lab.commit()
    lab.commit(**{"later.txt": "later"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    shutil.rmtree(lab.root / ".attune/trainings")
    number = lab.register().version
    client = MlflowClient(f"sqlite:///{tmp_path}/other.db")
    tags = client.get_run(client.get_model_version("films", str(number)).run_id or "").data.tags
    assert not {COMMIT_TAG, "attune.commit", DIRTY_TAG} & tags.keys()
    assert lab.lineage(str(number)) == 0
    said = capsys.readouterr().out
    assert f"recorded by  {recording[:10]} of" in said
    assert "its run names no commit" in said and "clean" not in said.split("data  ")[0]
    assert lab.lineage(str(number), "--restore", "../old") == 0
    assert contents(tmp_path / "old/models/finetuned") == words(8, "3.0e-3")


def test_a_large_patch_is_not_kept_and_said_to_be_large(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MOST", 10)
    shade(lab, 3)
    lab.train()
    number = lab.register(passed=False).version
    assert "are more than 10" in lab.client.get_model_version("films", str(number)).tags[PATCH_TAG]


def test_a_later_edit_changes_nothing_of_what_an_earlier_version_says(lab: Lab) -> None:
    kept = contents(lab.root / "mlruns")
    before = {number: lab.client.get_model_version("films", number).tags for number in "12"}
    lab.write("params.yaml", (lab.root / "params.yaml").read_text().replace("evaluate: {}", "evaluate: {examples: 3}"))
    lab.rate("3.0e-3")
    shade(lab, 8)
    lab.commit()
    lab.train()
    assert lab.register().version == 2, "the same model is the same version"
    assert {number: lab.client.get_model_version("films", number).tags for number in "12"} == before
    lineage = {path: content for path, content in contents(lab.root / "mlruns").items() if "lineage/" in path}
    assert lineage == {path: content for path, content in kept.items() if "lineage/" in path}


def test_runs_part_at_the_first_stage_whose_digests_differ(lab: Lab) -> None:
    one, two = (lab.client.get_run(find_version(lab.client, number, "films").run or "").data.tags for number in "12")
    stages = [name for name in read_graph(lab.root) if name != "register"]
    differing = [name for name in stages if one[f"attune.stage.{name}"] != two[f"attune.stage.{name}"]]
    assert differing == ["finetune", "evaluate"]
    assert (one[DIRTY_TAG], two[DIRTY_TAG]) == ("true", "false")
    assert one["attune.recipe"] == two["attune.recipe"] == "films, but finetune.learning_rate"


def test_params_are_kept_as_the_model_was_made_with(lab: Lab) -> None:
    with chdir(lab.root):
        lock, text = read_lock(), (lab.root / "params.yaml").read_text()
        assert making.params_of(lock, text) == text, "with its comments, as long as it says the same"
        edited = making.params_of(lock, text.replace("3.0e-3", "1.0").replace("trials", "renamed"))
        lab.write("edited.yaml", edited)
        found = read_yaml(Path("edited.yaml"))
        assert found["finetune"]["learning_rate"] == 3.0e-3
        assert found["tracking"]["experiment_name"] == "renamed"  # belongs to no stage
        assert list(found) == list(read_yaml(Path("params.yaml")))


# ── for a review ────────────────────────────────────────────────────────────────────────────────────────────────────


def revision(lab: Lab) -> Revision:
    data = read_yaml(lab.root / "params.yaml")
    return Revision("HEAD", "c" * 40, "mine", lab.root, read_graph(lab.root), read_lock(lab.root), data)


def test_a_review_gets_data_base_model_run_and_versions(lab: Lab) -> None:
    found = lineage_of(revision(lab), f"sqlite:///{lab.root / 'mlflow.db'}")
    assert found.data[0][0] == "data/inbox/rows.csv"
    assert [what for what, _ in found.data[1:]] == [
        f"data/clean/{one}.parquet" for one in ("train", "validation", "test")
    ]
    assert found.base_model == ("scratch", "b" * 64)
    assert found.versions == (("films", 2, ""),)
    assert found.run == find_version(lab.client, "2", "films").run
    assert found.problem == ""


def test_a_review_makes_no_store_and_waits_for_none(lab: Lab, tmp_path: Path) -> None:
    before = contents(tmp_path)
    (tmp_path / "empty.db").touch()
    for address, why in {
        f"sqlite:///{tmp_path}/none.db": "there is no store yet",
        f"sqlite:///{tmp_path}/empty.db": "no store of MLflow",
        "http://me:geheim@127.0.0.1:9": "127.0.0.1:9",
    }.items():
        found = lineage_of(revision(lab), address)
        assert found.run is None and why in found.problem
        assert "geheim" not in found.problem
        assert found.model
    assert contents(tmp_path) == {**before, "empty.db": b""}
    assert lineage_of(revision(lab), None).problem == ""


def test_asking_makes_no_store_and_tells_no_password(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, why in {
        f"sqlite:///{tmp_path}/none.db": "no store yet",
        f"{tmp_path}/none": "no store yet",
        f"file://{tmp_path}/none": "no store yet",
        "bogus://u:pa55word@h": "MLflow cannot be asked",
        "postgresql+nodriver://u:pa55word@h/db": "MLflow cannot be asked",
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert lab.lineage("1") == 1
        error = capsys.readouterr().err
        assert why in error and "→" in error and "pa55word" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_what_names_no_version_is_told(lab: Lab) -> None:
    with pytest.raises(AttuneError, match="names no version"):
        find_version(lab.client, "films", "films")
    with pytest.raises(AttuneError) as told:
        find_version(lab.client, "flims/1", "")
    assert told.value.fix == "did you mean films? registered are: films"
    with pytest.raises(AttuneError, match="NAME@champion"):
        find_version(lab.client, "../../x", "")
    assert find_version(lab.client, "models:/films/1", "other").number == 1
    assert find_version(lab.client, "", "films").number == 1
