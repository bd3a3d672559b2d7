"""prefect.yaml is read strictly: what Prefect would pass over, or fill in from the deployer's machine, is an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.deployment.deployed import wanted_of
from flows.deployment.prefect_file import read_prefect_file
from stages.common.errors import AttuneError
from tests.conftest import PROJECT

yaml = YAML()
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)  # flows are imported from the current folder


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Change], Path]:
    def changed(change: Change) -> Path:
        data = yaml.load(PROJECT / "prefect.yaml")
        change(data)
        with (tmp_path / "prefect.yaml").open("w") as written:
            yaml.dump(data, written)
        return tmp_path / "prefect.yaml"

    return changed


def nightly(**values: Any) -> Change:
    return lambda data: data["deployments"][0].update(values)


def schedule(**values: Any) -> Change:
    return lambda data: data["deployments"][0]["schedules"][0].update(values)


def test_the_projects_own_is_in_order_and_each_deployment_says_what_it_is_to_do() -> None:
    read = read_prefect_file(PROJECT / "prefect.yaml")
    assert [one.name for one in read.deployments] == ["nightly", "new-data", "review", "predict"]
    for one in wanted_of(read, {"attune_work_pool": "forest"}):
        assert one.pool == "forest"
        assert one.pull[0]["prefect.deployments.steps.set_working_directory"]["directory"] == "{{ $ATTUNE_HOME }}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (nightly(name="a/b"), r"deployments\.a/b\.name: String should match"),
        (nightly(parameters={1: "x"}), r"nightly\.parameters\.1"),
        (nightly(shedules=[]), r"deployments\.nightly\.shedules: Extra inputs"),
        (nightly(concurrency_limit=1), r"nightly\.concurrency_limit"),
        (nightly(concurrency_limit={"limit": 1, "collision_strategy": "WAIT"}), "collision_strategy"),
        (nightly(parameters={"commit": "{{ $COMMIT }}"}), r"nightly holds {{ \$COMMIT }}, and nothing fills it in"),
        (nightly(description="{{ HF_TOKEN }}"), "nightly holds {{ HF_TOKEN }}"),
        (schedule(interval=60), r"nightly\.schedules\.nightly: Value error, one of cron, interval"),
        (
            lambda data: data["deployments"][0]["schedules"][0].pop("active"),
            r"schedules\.nightly\.active: Field required",
        ),
        (lambda data: data["deployments"][0]["schedules"][0].pop("slug"), r"schedules\.0\.slug: Field required"),
        (lambda data: data["deployments"][0]["schedules"].append(data["deployments"][0]["schedules"][0]), "twice"),
        (lambda data: data["deployments"][1]["triggers"][0].pop("name"), "a trigger has no name"),
        (lambda data: data.pop("pull"), "pull: Field required"),
        (lambda data: data.update(build=[{"some.step": {}}]), "build"),
        (lambda data: data.update(deployments=None), "deployments"),
    ],
)
def test_a_mistake_is_told_by_its_place(file: Callable[[Change], Path], change: Change, told: str) -> None:
    with pytest.raises(AttuneError, match=told):
        read_prefect_file(file(change))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (nightly(parameters={"comit": "HEAD"}), "attune-retrain has no parameter 'comit'"),
        (nightly(parameters={"refresh": "perhaps"}), "nightly: parameters: .*perhaps"),
        (nightly(entrypoint="flows/retrain.py:train"), "flows/retrain.py:train cannot be loaded"),
        (nightly(work_pool={"name": "{{ prefect.variables.other }}"}), "no variable of the server stands for"),
        (schedule(cron="every night"), "nightly: .*cron"),
        (schedule(timezone="Middle/Earth"), "nightly: .*timezone"),
        (lambda data: data["deployments"][1]["triggers"][0].update(posture="Calm"), "new-data: "),
    ],
)
def test_what_does_not_go_with_the_flow_or_the_server_is_told_before_anything_is_deployed(
    file: Callable[[Change], Path], change: Change, told: str
) -> None:
    with pytest.raises(AttuneError, match=told):
        wanted_of(read_prefect_file(file(change)), {"attune_work_pool": "attune"})


@pytest.mark.parametrize("statement", ["raise SystemExit(0)", "import sys; sys.exit()", "raise RuntimeError('odd')"])
def test_a_flow_that_cannot_be_loaded_is_told_however_it_ends(
    file: Callable[[Change], Path], tmp_path: Path, statement: str
) -> None:
    (tmp_path / "odd.py").write_text(statement)
    read = read_prefect_file(file(nightly(entrypoint=f"{tmp_path / 'odd.py'}:odd")))
    with pytest.raises(AttuneError, match=r"nightly: .*odd\.py:odd cannot be loaded: \w+"):
        wanted_of(read, {"attune_work_pool": "attune"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [", "is no YAML"),
        (b"- 1", "is not in order"),
        (b"", "not in order"),
        (b"[" * 20_000, "is no YAML that can be read"),
        (b"a: \xff\xfe", "is no YAML"),
        (b"a: \x00", "is no YAML"),
    ],
)
def test_a_broken_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_bytes(content)
    with pytest.raises(AttuneError, match=told):
        read_prefect_file(path)
    path.unlink()
    with pytest.raises(AttuneError, match="is missing"):
        read_prefect_file(path)
    path.mkdir()
    with pytest.raises(AttuneError, match="cannot be read: Is a directory"):
        read_prefect_file(path)
