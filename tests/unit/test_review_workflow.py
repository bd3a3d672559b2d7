"""The workflow that reviews pull requests: what a stranger chose is no part of a script, and it may not do much."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.reviewing.page import MARK
from tests.projects import PROJECT

WORKFLOW = PROJECT / ".github" / "workflows" / "review.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(WORKFLOW.read_text())  # YAML 1.2: `on` is no yes


@pytest.fixture(scope="module")
def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()
    return job["steps"]


def test_it_may_read_code_and_write_comments(workflow: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    assert list(workflow["on"]) == ["pull_request"], "with pull_request_target, a stranger's code would get the secrets"
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 4
    assert not any("${{" in script for script in scripts), "the name of a branch would be run"
    (checkout,) = (step["with"] for step in steps if step.get("uses", "").startswith("actions/checkout@"))
    assert (checkout["fetch-depth"], checkout["persist-credentials"]) == (0, False), "no credential for the stages"
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    tokens = [name for step in steps for name in step.get("env", {}) if "TOKEN" in name]
    always = [step["name"] for step in steps if "!cancelled()" in step.get("if", "")]
    assert always == ["Show it here", "Keep the page", "Comment"], "what was found is shown even if it is bad"
    assert "head.repo.full_name == github.repository" in steps[-1]["if"], "a fork's token cannot write"
    assert tokens == ["GH_TOKEN"] and "gh pr comment" in steps[-1]["run"], "the token is there for the comment alone"


def test_the_comment_of_an_earlier_push_is_updated(steps: list[dict[str, Any]], tmp_path: Path) -> None:
    assert MARK in steps[-1]["run"]
    (tmp_path / "bin").mkdir()
    script = 'case "$1" in api) test "$2" = --paginate && cat ids || echo "$@" >> did;; *) echo "$@" >> did;; esac'
    (tmp_path / "bin" / "gh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "gh").chmod(0o755)
    variables = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "GH_REPO": "a/b", "NUMBER": "7"}
    for ids, call in (("", "pr comment 7 --body-file logs/review.md"), ("11\n12\n", "repos/a/b/issues/comments/12")):
        (tmp_path / "ids").write_text(ids)
        (tmp_path / "did").unlink(missing_ok=True)
        bash(steps[-1]["run"], tmp_path, **variables)
        assert call in (tmp_path / "did").read_text()


def test_the_name_of_a_branch_reaches_the_review_as_it_is(steps: list[dict[str, Any]], tmp_path: Path) -> None:
    (step,) = (step for step in steps if step.get("name") == "Review")
    assert step["env"]["BASE_REF"] == "${{ github.base_ref }}"
    makefile = (PROJECT / "Makefile").read_text()
    recipe = makefile[makefile.index("\nreview: install") :].split("\n\n")[0].replace("review: install", "review:")
    (tmp_path / "Makefile").write_text("ACTIVE := PATH=bin:$$PATH\n" + recipe + "\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    hostile = "a\";true>gone;`true>gone`'"
    output = bash(step["run"], tmp_path, BASE_REF=hostile)
    assert output.split("\n") == ["-m", "flows.review", "--base", f"refs/remotes/origin/{hostile}", ""]
    assert not (tmp_path / "gone").exists()


def bash(script: str, folder: Path, **variables: str) -> str:
    """Run a step as GitHub does."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "BASE", "HEAD", "ARGS")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=True)
    return done.stdout
