"""A stage runs again if what it asks of the task has changed, and for no other task."""

import ast
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from stages.common.params import read_yaml
from stages.common.pipeline.graph import Node, read_graph
from tests.projects import PROJECT

TASKS = PROJECT / "stages" / "tasks"
OWN = {folder.name: {link.resolve() for link in folder.iterdir()} for folder in (TASKS / "by_name").iterdir()}
HOOKS = (TASKS / "base.py", TASKS / "generating.py", TASKS / "training.py")
HOLDERS = ("task", "_task", "load_task")  # whose attributes are hooks: `task.encode`, `self.task.encode`
NODES, TASK = read_graph(PROJECT), read_yaml(PROJECT / "params.yaml")["task"]
Part = tuple[Path, ast.AST]


@dataclass(frozen=True)
class Code:
    """A file in parts: a part counts if it is used."""

    parts: dict[str, ast.AST]  # functions and classes
    hooks: dict[str, list[ast.AST]]  # of tasks
    rest: list[ast.AST]  # what runs whenever the file is imported


def imported(*trees: ast.AST) -> dict[str, tuple[Path, str]]:
    """Return what names stand for that are imported from `stages/tasks`: the file, and the name there."""
    names = {}
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        module = node.module or ""
        for name in node.names if module.startswith("stages.tasks") else ():
            stem = module.removeprefix("stages.tasks").removeprefix(".") or name.name
            file = TASKS / f"{stem}.py"  # `from stages.tasks import curves`, or else `load_task` out of the package
            names[name.asname or name.name] = (file if file.exists() else TASKS / "__init__.py", name.name)
    return names


@cache
def read(file: Path) -> Code:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    tasks = [
        node for node in classes if any(name.endswith("Task") for name in (node.name, *map(ast.unparse, node.bases)))
    ]
    functions = [part for task in tasks for part in task.body if isinstance(part, ast.FunctionDef)]
    hooks = {name: [part for part in functions if part.name == name] for name in {part.name for part in functions}}
    parts = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node not in tasks}
    rest = [node for node in body if node not in tasks and node not in parts.values()]
    rest += [part for task in tasks for part in (*task.bases, *task.body) if part not in functions]
    return Code(parts, hooks, rest)


def used(part: Part) -> tuple[set[tuple[Path, str]], set[str]]:
    """Return what a part uses of stages/tasks or its own file, by file and name, and the hooks that it calls."""
    file, code = part[0], read(part[0])
    known, in_hook = imported(*code.rest, part[1]), any(part[1] in same for same in code.hooks.values())
    names, hooks = set[tuple[Path, str]](), set[str]()
    for node in ast.walk(part[1]):
        if isinstance(node, ast.Name):
            names.add(known.get(node.id, (file, node.id)))
        elif isinstance(node, ast.Attribute):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            held = getattr(owner, "attr", getattr(owner, "id", ""))
            if held in HOLDERS or (in_hook and held == "self"):
                hooks.add(node.attr)
            elif held in known:  # a function of an imported file
                names.add((known[held][0], node.attr))
    return names, hooks


def modules(task: str) -> list[Path]:
    """Return the files that have hooks of a task alone."""
    return sorted(file for file in OWN[task] if read(file).hooks)


def code_of(node: Node) -> list[Part]:
    """Return all parts of what a stage lists of the code outside of `stages/tasks`."""
    code = [PROJECT / dep for dep in node.deps if dep.startswith("stages/") and not dep.startswith("stages/tasks")]
    files = [file for path in code for file in (path, *path.rglob("*.py")) if file.suffix == ".py"]
    return [(file, tree) for file in files for tree in (*read(file).rest, *read(file).parts.values())]


def reached(waiting: list[Part], tasks: list[Path]) -> set[Path]:
    """Return the files of `stages/tasks` that parts use, themselves and by the hooks of these tasks that they call."""
    seen, files = set[int](), set[Path]()
    waiting += [(file, tree) for file in tasks for tree in read(file).rest]
    while waiting:
        part = waiting.pop()
        if id(part[1]) in seen:
            continue
        seen.add(id(part[1]))
        names, hooks = used(part)
        for file, name in names:
            waiting += [(file, tree) for tree in (read(file).parts.get(name),) if tree]
            if file.parent == TASKS and file not in files:
                files.add(file)
                waiting += [(file, tree) for tree in read(file).rest]
        waiting += [(file, tree) for file in tasks for hook in hooks for tree in read(file).hooks.get(hook, ())]
    return files


def needed(node: Node) -> set[str]:
    """Return what of `stages/tasks` decides the outs of a stage."""
    asks = any((TASKS / "__init__.py", "load_task") in used(part)[0] for part in code_of(node))
    own = [file for task in OWN for file in modules(task)]
    files = reached(code_of(node), [*HOOKS, *own] if asks else []).difference(*OWN.values())
    of_task = {f"stages/tasks/{TASK}.toml", f"stages/tasks/by_name/{TASK}"} if asks else set()
    return {f"stages/tasks/{file.name}" for file in files} | of_task


def differing(node: Node) -> tuple[set[str], set[str]]:
    """Return what dvc.yaml lacks among the deps of a stage, and what it lists there in vain."""
    listed = {dep for dep in node.deps if dep.startswith("stages/tasks")}
    return needed(node) - listed, listed - needed(node)


@pytest.mark.parametrize("name", NODES)
def test_a_stage_depends_on_the_task_files_that_it_reaches_and_on_no_other(name: str) -> None:
    missing, needless = differing(NODES[name])
    assert not missing and not needless, f"dvc.yaml, deps of {name}: add {sorted(missing)}, remove {sorted(needless)}"
    assert ("task" in NODES[name].params) == (f"stages/tasks/{TASK}.toml" in NODES[name].deps), (
        "`task` among its params"
    )


def test_a_dep_that_is_missing_and_one_too_many_are_both_seen() -> None:
    node = NODES["finetune"]
    deps = [dep for dep in node.deps if not dep.endswith("encoder.py")]
    missing, needless = differing(replace(node, deps=(*deps, "stages/tasks/slices.py")))
    assert (missing, needless) == ({"stages/tasks/encoder.py"}, {"stages/tasks/slices.py"})


def test_what_one_task_alone_uses_is_in_its_folder_so_that_a_change_there_runs_nothing_of_another() -> None:
    by_stages = reached([part for node in NODES.values() for part in code_of(node)], [])
    uses = {
        task: reached(
            [(file, hook) for file in modules(task) for same in read(file).hooks.values() for hook in same],
            modules(task),
        )
        for task in OWN
    }
    for task, files in uses.items():
        others = by_stages.union(*(theirs for other, theirs in uses.items() if other != task))
        assert OWN[task] == {*modules(task)} | {file for file in files - others if file.parent == TASKS}


def test_outside_of_the_tasks_no_code_names_a_score_of_one_or_looks_for_the_likeliest_output() -> None:
    files = [file for folder in ("stages", "flows") for file in (PROJECT / folder).rglob("*")]
    files = [file for file in files if file.suffix in (".py", ".j2") and TASKS not in file.parents]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    named = {file: re.findall("(?i)argmax|accuracy|macro.f1", text) for file, text in texts.items()}
    assert texts and not {file: names for file, names in named.items() if names}
