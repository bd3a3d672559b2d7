"""Other values in params.yaml: those lines change, and no other."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.search.params_patch import change, difference, patched
from stages.common.errors import AttuneError
from stages.common.params import check_params
from tests.projects import PROJECT

FILES = [PROJECT / "params.yaml", *sorted((PROJECT / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_lines_of_the_values_change_and_no_other(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("  learning_rate:")]
    new = patched(text, {"finetune.learning_rate": 0.000137, "finetune.l1": 2.5e-7})
    before, after, added = difference(text, new)
    assert before == f"-{line}" and after.startswith("+  learning_rate: 0.000137") and added == "+  l1: 2.5e-07"
    assert after.partition("#")[2] == line.partition("#")[2], "the comment stays"
    lines = new.splitlines()
    top = [line for line in lines[: lines.index("  l1: 2.5e-07")] if line and not line[0].isspace()]
    assert top[-1] == "finetune:", "a new key stands in its section, not under the heading of the next"


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 1e-9), ("learning_rate", 0.1 + 0.2), ("num_train_epochs", 1000), ("dropout", None),
     ("group_by_length", True)],
)  # fmt: skip
def test_what_is_written_is_what_is_read(name: str, value: object) -> None:
    text, settings = FILES[0].read_text(encoding="utf-8"), {f"finetune.{name}": value}
    read = check_params(YAML().load(patched(text, settings)))
    assert read == check_params(change(YAML().load(text), settings)) and getattr(read.finetune, name) == value


def test_another_strategy_takes_the_options_of_the_last_one_out() -> None:
    text = patched(FILES[0].read_text(encoding="utf-8"), {"finetune.strategy": "lora", "finetune.lora.r": 4})
    params = check_params(YAML().load(text))
    assert params.finetune.lora and params.finetune.lora.r == 4
    assert check_params(YAML().load(patched(text, {"finetune.strategy": "full"}))).finetune.lora is None


def test_values_that_contradict_the_rest_are_not_written() -> None:
    with pytest.raises(AttuneError, match="momentum"):
        patched(FILES[0].read_text(encoding="utf-8"), {"finetune.momentum": 0.9})


def test_lists_stay_as_far_in_as_dvc_writes_them() -> None:
    text = (
        "task: text-classification\ningest:\n  sources:\n  - path: data/inbox/x.csv # here\n"
        "    columns: {text: a, label: b}\n  base_model: {scratch: {}}\ntokenize: {max_length: 32}\n"
        "finetune:\n  learning_rate: 0.1 # peak\n\n# last\nregister: {model_name: t}\n"
    )
    assert patched(text, {"finetune.learning_rate": 0.2}) == text.replace("0.1 # peak", "0.2 # peak")
