"""The deployments of prefect.yaml on a real server, with real workers; images and clusters are not needed."""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableUpdate
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from tests.pipeline.prefect_server import PrefectServer
from tests.projects import PROJECT, RECIPE, Project, toy_project
from tests.waiting import until as until_true

NAMES = ["attune-retrain/nightly", "attune-retrain/new-data", "attune-review/review", "attune-predict/predict"]
SECRET = "hf_aSecretThatStandsInABlock"
yaml = YAML()


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(api=server.environment["PREFECT_API_URL"]) as opened:
        yield opened


@pytest.fixture(scope="module")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as somebody has it who deploys it: real flows and stages' code, a pipeline of two quick stages."""
    checkout = toy_project(tmp_path_factory.mktemp("deployer") / "project")
    for name in ("flows", "stages"):
        shutil.copytree(PROJECT / name, checkout.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    checkout.commit(**{"prefect.yaml": (PROJECT / "prefect.yaml").read_text(), "params.yaml": RECIPE})
    return checkout


@pytest.fixture(scope="module")
def home(deployer: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The clone on the worker's machine, in which a person is at work, too."""
    folder = tmp_path_factory.mktemp("worker") / "clone"
    subprocess.run(["git", "clone", "-q", str(deployer.root), str(folder)], check=True)
    checkout = Project(folder)
    checkout.file("data/inbox/rows.csv", "row\n")
    checkout.file("params.yaml", "half: edited\n")
    checkout.file("note.txt", "a person's")
    (folder / ".attune").mkdir()
    return checkout


@pytest.fixture(scope="module")
def worker(server: PrefectServer, deployer: Project, home: Project) -> Iterator[None]:
    """A worker for the module's tests."""
    deploy(server, deployer)
    with server.worker("attune", cwd=server.home, ATTUNE_HOME=str(home.root)):
        yield


def deploy(server: PrefectServer, project: Project, status: int = 0, **more: str) -> str:
    """Do `make deploy` in the project; return what it said."""
    done = server.run("python", "-m", "flows.deploy", cwd=project.root, check=False, **more)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def edit(project: Project, change: Callable[[dict[str, Any]], object]) -> None:
    """Change prefect.yaml: `change` gets the deployments by name."""
    path = project.root / "prefect.yaml"
    data = yaml.load(path)
    change({one["name"]: one for one in data["deployments"]})
    with path.open("w") as file:
        yaml.dump(data, file)


@pytest.fixture
def edited(deployer: Project) -> Iterator[Project]:
    """The deployer's project, whose prefect.yaml a test may change."""
    before = (deployer.root / "prefect.yaml").read_bytes()
    yield deployer
    (deployer.root / "prefect.yaml").write_bytes(before)


def state_of(client: SyncPrefectClient) -> str:
    """Return what the server has of the deployments and their triggers, without numbers and times of change."""
    found: list[Any] = []
    for name in NAMES:
        made = client.read_deployment_by_name(name)
        rules = client.read_resource_related_automations(f"prefect.deployment.{made.id}")
        found += [schedule.model_dump(exclude={"updated"}) for schedule in made.schedules]
        found += [(rule.name, rule.trigger.model_dump(exclude={"id"})) for rule in rules]
        found.append(made.model_dump(mode="json", exclude={"last_polled", "status", "updated", "schedules"}))
    return json.dumps(found, default=str)


def start(client: SyncPrefectClient, name: str, **parameters: Any) -> UUID:
    made = client.read_deployment_by_name(name)
    return client.create_flow_run_from_deployment(made.id, parameters=parameters).id


def until(client: SyncPrefectClient, run: UUID, *states: str, seconds: float = 60) -> FlowRun:
    """Wait until a run is in a state of one of these names."""
    end = time.monotonic() + seconds
    while (found := client.read_flow_run(run)).state_name not in states:
        assert time.monotonic() < end, f"{found.state_name}: {found.state.message if found.state else ''}"
        time.sleep(0.3)
    return found


def test_deploying_twice_leaves_all_as_it_is_and_no_folder_or_secret_of_the_deployer_is_on_the_server(
    server: PrefectServer, client: SyncPrefectClient, deployer: Project
) -> None:
    more = {"ATTUNE_HOME": str(deployer.root), "HF_TOKEN": SECRET}
    deploy(server, deployer, **more)
    before = state_of(client)
    deploy(server, deployer, **more)
    assert state_of(client) == before
    assert client.read_work_pool("attune").type == "process"
    assert not [secret for secret in (str(deployer.root), str(PROJECT), SECRET) if secret in before]
    assert "data-arrived" in before


def test_what_keeps_it_from_deploying_is_said(server: PrefectServer, deployer: Project) -> None:
    assert "PREFECT_API_URL is not set" in deploy(server, deployer, 1, PREFECT_API_URL="")
    told = deploy(server, deployer, 1, PREFECT_API_URL="http://me:hunter22@127.0.0.1:9/api")
    assert "no Prefect server answers at http://" in told and "make services" in told and "hunter22" not in told
    server.run("prefect", "variable", "set", "attune_work_pool", "forest", "--overwrite", cwd=server.home)
    told = deploy(server, deployer, 1)
    assert "references work pool 'forest' which does not exist" in " ".join(told.split())
    server.run("prefect", "variable", "set", "attune_work_pool", "attune", "--overwrite", cwd=server.home)


def test_a_schedule_fires_and_the_run_completes_in_a_clean_worktree(
    server: PrefectServer, client: SyncPrefectClient, worker: None, edited: Project, home: Project
) -> None:
    before, commit = home.seen(), home.git("rev-parse", "HEAD")
    edit(edited, lambda named: named["nightly"]["schedules"][0].update(cron="* * * * *"))
    deploy(server, edited)
    end = time.monotonic() + 100
    while not (done := [run for run in runs_of(client, "attune-retrain/nightly") if run.state_name == "Completed"]):
        states = [(run.state_name, run.state.message) for run in runs_of(client, "attune-retrain/nightly")[:5]]
        assert time.monotonic() < end, (states, (server.home / "worker.log").read_text()[-3000:])
        time.sleep(0.5)
    assert done[0].auto_scheduled
    tasks = client.read_task_runs(
        task_run_filter=TaskRunFilter.model_validate({"flow_run_id": {"any_": [done[0].id]}}),
        sort=TaskRunSort.EXPECTED_START_TIME_ASC,
        limit=9,
    )
    assert [(task.name, task.state_name) for task in tasks] == [("make", "Completed"), ("judge", "Completed")]
    assert home.seen() == before
    assert home.git("rev-parse", "refs/attune/nightly^") == commit
    assert "accuracy" in home.git("show", "refs/attune/nightly:reports/metrics.json")
    assert home.git("worktree", "list").count("\n") == 0


def test_a_review_works_beside_the_clone(
    server: PrefectServer, client: SyncPrefectClient, worker: None, deployer: Project, home: Project
) -> None:
    deploy(server, deployer)
    until(client, start(client, "attune-retrain/nightly"), "Completed")
    before = home.seen()
    run = start(client, "attune-review/review", base="HEAD", head="refs/attune/nightly")
    ended = until(client, run, "Completed", "Failed", seconds=90)
    assert ended.state_name == "Completed", ended.state
    by_key = ArtifactFilter.model_validate({"key": {"any_": ["attune-review"]}, "flow_run_id": {"any_": [run]}})
    (artifact,) = client.read_artifacts(artifact_filter=by_key)
    assert artifact.data == (home.root / "logs" / "review.md").read_text()
    after = {name: digest for name, digest in home.seen().items() if not name.startswith("logs/")}
    assert after == {name: digest for name, digest in before.items() if not name.startswith("logs/")}
    assert home.git("worktree", "list").count("\n") == 0


def test_an_event_starts_the_run_for_new_data(
    server: PrefectServer, client: SyncPrefectClient, worker: None, deployer: Project
) -> None:
    deploy(server, deployer)
    before = {run.id for run in runs_of(client, "attune-retrain/new-data")}
    server.run("prefect", "event", "emit", "attune.data.arrived", "--resource-id", "attune.data", cwd=server.home)
    until_true(lambda: len(runs_of(client, "attune-retrain/new-data")) > len(before), 30)
    (new,) = [run.id for run in runs_of(client, "attune-retrain/new-data") if run.id not in before]
    assert until(client, new, "Completed").parameters["refresh"] is True


def test_a_container_of_the_docker_pool_has_what_a_run_needs_and_its_command_completes_it(
    server: PrefectServer, client: SyncPrefectClient, worker: None, edited: Project, home: Project
) -> None:
    from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

    reference = "{{ prefect.blocks.secret.hf-token }}"
    variables = {"mlflow_tracking_uri": "http://mlflow:5000"}
    secrets = {"HF_TOKEN": reference}
    with in_pool(server, client, edited, "docker", variables, **secrets), temporary_settings(here(server)):
        edit(edited, lambda named: named["nightly"]["work_pool"].update(job_variables={"env": secrets}))
        assert "would stand on the server in plain text" in deploy(server, edited, 1)
        run = start(client, "attune-retrain/nightly")
        job = asyncio.run(job_of(DockerWorkerJobConfiguration, client.read_flow_run(run), "docker"))
    told = DockerWorker(work_pool_name="docker")._build_container_settings(Daemon(), job)
    assert told["image"] == "attune" and told["volumes"] == ["attune:/srv/attune"]
    assert (told["privileged"], told["cap_drop"], told["security_opt"]) == (False, ["ALL"], ["no-new-privileges:true"])
    environment = told["environment"]
    assert environment["ATTUNE_HOME"] == "/srv/attune" and environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert environment["HF_TOKEN"] == SECRET and environment["PREFECT__FLOW_RUN_ID"] == str(run)
    assert str(server.home) not in json.dumps(environment), "no folder of the worker's machine"

    # The container's own command, here: the volume is the clone, and the server has another address.
    own = {"ATTUNE_HOME": str(home.root), "PREFECT_API_URL": server.environment["PREFECT_API_URL"]}
    del environment["MLFLOW_TRACKING_URI"]
    server.run(*told["command"].split(), cwd=server.home, **environment | own)
    assert client.read_flow_run(run).state_name == "Completed"


def test_a_job_of_the_kubernetes_pool_is_one_that_kubernetes_knows_and_names_its_secrets_only(
    server: PrefectServer, client: SyncPrefectClient, worker: None, edited: Project
) -> None:
    from kubernetes_asyncio.client import ApiClient
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    variables = {"repository": "https://example.org/attune.git", "memory_limit": "16Gi"}
    with in_pool(server, client, edited, "kubernetes", variables), temporary_settings(here(server)):
        run = start(client, "attune-retrain/nightly")
        job = asyncio.run(job_of(KubernetesWorkerJobConfiguration, client.read_flow_run(run), "kubernetes"))
        client.delete_flow_run(run)
    manifest = job.job_manifest
    api = ApiClient.__new__(ApiClient)  # without a configuration of a cluster
    read = api._ApiClient__deserialize(json.loads(json.dumps(manifest)), "V1Job")
    pod_only = {"parallelism", "completions"}  # Prefect asks for these two where Kubernetes passes over them
    spec = manifest["spec"]["template"]["spec"]
    again = api.sanitize_for_serialization(read)["spec"]["template"]["spec"]
    assert again == {key: value for key, value in spec.items() if key not in pod_only}, "no field is misspelt"
    (container,) = spec["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["ATTUNE_HOME"] == "/srv/attune" and environment["PREFECT__FLOW_RUN_ID"] == str(run)
    assert environment["PREFECT_API_URL"].startswith("http://127.0.0.1:"), "the worker's own server"
    assert str(server.home) not in json.dumps(manifest), "no folder of the worker's machine"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["limits"] == {"memory": "16Gi"}
    assert container["envFrom"] == [{"secretRef": {"name": "attune", "optional": True}}]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "attune"}
    assert manifest["spec"]["backoffLimit"] == 0 and manifest["metadata"]["namespace"] == "attune"
    assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"]


def test_the_first_pods_clone_the_project_once(deployer: Project, tmp_path: Path) -> None:
    template = json.loads((PROJECT / "work_pools" / "kubernetes.json").read_text())
    (clone,) = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["initContainers"]
    folder = tmp_path / "attune"

    def pod(name: str, **more: str) -> "subprocess.Popen[str]":
        own = {"ATTUNE_HOME": str(folder), "HOSTNAME": name, **more}
        return subprocess.Popen(clone["command"], env=os.environ | own, stderr=subprocess.PIPE, text=True)

    nowhere = pod("a")
    assert "give the job variable repository" in nowhere.communicate()[1] and nowhere.returncode
    pods = [pod(name, ATTUNE_REPOSITORY=str(deployer.root)) for name in "bcd"]
    assert [one.wait(60) for one in pods] == [0, 0, 0]
    assert pod("e").wait(60) == 0, "later ones need no repository"
    assert [path.name for path in tmp_path.iterdir()] == ["attune"]
    assert Project(folder).git("status", "--porcelain") == ""


class Daemon:
    """What the Docker worker asks a daemon before it makes a container."""

    def version(self) -> dict[str, str]:
        return {"Version": "28.0.0"}


def runs_of(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    made = client.read_deployment_by_name(name)
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"deployment_id": {"any_": [made.id]}}),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=200,
    )


def here(server: PrefectServer) -> dict[Any, str]:
    """Return settings that have this process talk to the server."""
    return {PREFECT_API_URL: server.environment["PREFECT_API_URL"]}


@contextmanager
def in_pool(
    server: PrefectServer, client: SyncPrefectClient, edited: Project, kind: str, variables: dict[str, Any], **env: str
) -> Iterator[None]:
    """Deploy to a pool of another kind, made from its template as docs/containers.md says."""
    template = json.loads((PROJECT / "work_pools" / f"{kind}.json").read_text())
    template["variables"]["properties"]["env"]["default"] = env
    path = server.home / f"{kind}.json"
    path.write_text(json.dumps(template))
    command = ("work-pool", "create", kind, "--type", kind, "--base-job-template", str(path))
    server.run("prefect", *command, cwd=server.home)
    client.update_variable(VariableUpdate(name="attune_work_pool", value=kind))
    with temporary_settings(here(server)):
        Secret(value=SECRET).save("hf-token", overwrite=True)
    edit(edited, lambda named: named["nightly"]["work_pool"].update(job_variables=variables))
    edit(edited, lambda named: named["nightly"]["schedules"][0].update(active=False))
    try:
        deploy(server, edited)
        yield
    finally:
        client.update_variable(VariableUpdate(name="attune_work_pool", value="attune"))


async def job_of(kind: Any, run: FlowRun, pool: str) -> Any:
    """Return the job that a worker of the pool would make of a run."""
    async with get_client() as client:
        work_pool = await client.read_work_pool(pool)
        return await kind.resolve_for_flow_run(run, client=client, work_pool=work_pool, worker_name="worker")
