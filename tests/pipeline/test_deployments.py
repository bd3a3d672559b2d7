"""The deployments of prefect.yaml on a real server, with real workers; images and clusters are not needed."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.events import Event
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from flows.deploy import deploy_all
from flows.repository.results import keep
from flows.repository.worktrees import open_worktree, remove
from stages.common.errors import AttuneError
from tests.pipeline.prefect_server import PrefectServer
from tests.projects import OF_RUNS, PROJECT, RECIPE, Project, toy_project
from tests.waiting import until as until_true

NAMES = ["attune-retrain/nightly", "attune-retrain/new-data", "attune-review/review", "attune-predict/predict"]
SECRET = "hf_aSecretThatStandsInABlock"
yaml = YAML()


@pytest.fixture
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of the server, as are all that this process makes meanwhile."""
    url = server.environment["PREFECT_API_URL"]
    with temporary_settings({PREFECT_API_URL: url}), SyncPrefectClient(api=url) as opened:
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
    deployer.git("clone", "-q", ".", str(folder))
    checkout = Project(folder)
    checkout.file("data/inbox/rows.csv", "row\n")
    checkout.file("params.yaml", "half: edited\n")
    checkout.file("note.txt", "a person's")
    return checkout


@pytest.fixture(scope="module")
def deployed(server: PrefectServer, deployer: Project) -> None:
    deploy(server, deployer, ATTUNE_HOME=str(deployer.root), HF_TOKEN=SECRET)


@pytest.fixture(scope="module")
def worker(server: PrefectServer, deployed: None, home: Project) -> Iterator[None]:
    with server.worker("attune", cwd=server.home, ATTUNE_HOME=str(home.root)):
        yield


def deploy(server: PrefectServer, project: Project, **more: str) -> None:
    """Do `make deploy` in the project, in this process."""
    url = more.get("PREFECT_API_URL", server.environment["PREFECT_API_URL"])
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: url or None}):
        patch.chdir(project.root)
        for name, value in {"PREFECT_HOME": str(server.home), "PREFECT_API_URL": url, **more}.items():
            patch.setenv(name, value)
        deploy_all()


def edit(project: Project, **settings: Any) -> None:
    """Change the deployment `nightly` in prefect.yaml."""
    path = project.root / "prefect.yaml"
    data = yaml.load(path)
    data["deployments"][0].update(settings)
    yaml.dump(data, path)


@pytest.fixture
def edited(deployer: Project) -> Iterator[Project]:
    """The deployer's project, whose prefect.yaml a test may change."""
    before = (deployer.root / "prefect.yaml").read_bytes()
    yield deployer
    (deployer.root / "prefect.yaml").write_bytes(before)


def state_of(client: SyncPrefectClient) -> str:
    """Return what the server has of the deployments and their triggers, without ids and times of change."""
    state: list[Any] = []
    for name in NAMES:
        made = client.read_deployment_by_name(name)
        rules = client.read_resource_related_automations(f"prefect.deployment.{made.id}")
        state += [schedule.model_dump(exclude={"updated"}) for schedule in made.schedules]
        state += [(rule.name, rule.trigger.model_dump(exclude={"id"})) for rule in rules]
        state.append(made.model_dump(mode="json", exclude={"last_polled", "status", "updated", "schedules"}))
    return json.dumps(state, default=str)


def start(client: SyncPrefectClient, name: str, **parameters: Any) -> UUID:
    made = client.read_deployment_by_name(name)
    return client.create_flow_run_from_deployment(made.id, parameters=parameters).id


def until(client: SyncPrefectClient, run: UUID, *states: str, seconds: float = 60) -> FlowRun:
    """Wait until a run is in a state of one of these names."""
    until_true(lambda: client.read_flow_run(run).state_name in states, seconds)
    return client.read_flow_run(run)


def test_deploying_again_changes_nothing_and_no_folder_or_secret_of_the_deployer_is_on_the_server(
    server: PrefectServer, client: SyncPrefectClient, deployer: Project, deployed: None
) -> None:
    before = state_of(client)
    deploy(server, deployer)
    assert state_of(client) == before
    assert client.read_work_pool("attune").type == "process"
    assert not [secret for secret in (str(deployer.root), str(PROJECT), SECRET) if secret in before]
    assert "data-arrived" in before


def test_what_keeps_it_from_deploying_is_said(server: PrefectServer, deployer: Project) -> None:
    with pytest.raises(AttuneError, match="PREFECT_API_URL is not set"):
        deploy(server, deployer, PREFECT_API_URL="")


def test_a_scheduled_run_and_a_review_work_beside_each_other_and_beside_the_clone(
    server: PrefectServer, client: SyncPrefectClient, worker: None, edited: Project, home: Project
) -> None:
    folder = open_worktree(home.root, str(uuid4()), "by-hand", "HEAD", print)
    Project(folder).reproduced()
    assert keep(folder, "by-hand", "results")
    remove(home.root, folder)
    before, commit = home.seen(*OF_RUNS, "logs/*"), home.git("rev-parse", "HEAD")
    first = datetime.now(UTC) + timedelta(seconds=20)
    once = {"slug": "nightly", "interval": 86400, "anchor_date": first.isoformat(), "active": True}
    edit(edited, schedules=[once])
    deploy(server, edited)
    review = start(client, "attune-review/review", base="HEAD", head="refs/attune/by-hand")
    ended = until(client, review, "Completed", "Failed", seconds=90)
    assert ended.state_name == "Completed", ended.state
    by_key = ArtifactFilter.model_validate({"key": {"any_": ["attune-review"]}, "flow_run_id": {"any_": [review]}})
    (artifact,) = client.read_artifacts(artifact_filter=by_key)
    assert artifact.data == (home.root / "logs" / "review.md").read_text()
    until_true(lambda: runs_of(client, "attune-retrain/nightly"), 30)
    run = until(client, runs_of(client, "attune-retrain/nightly")[0].id, "Completed", seconds=100)
    assert run.auto_scheduled
    of_run = TaskRunFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
    tasks = client.read_task_runs(task_run_filter=of_run)
    assert {task.name: task.state_name for task in tasks} == {"make": "Completed", "judge": "Completed"}
    assert home.git("rev-parse", "refs/attune/nightly^") == commit
    assert "accuracy" in home.git("show", "refs/attune/nightly:reports/scores.json")
    assert home.seen(*OF_RUNS, "logs/*") == before
    assert home.git("worktree", "list").count("\n") == 0


def test_a_container_of_the_docker_pool_has_what_a_run_needs(
    server: PrefectServer, client: SyncPrefectClient, deployed: None, edited: Project
) -> None:
    from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

    secrets = {"HF_TOKEN": "{{ prefect.blocks.secret.hf-token }}"}
    edit(edited, work_pool={"name": "attune", "job_variables": {"env": secrets}})
    with pytest.raises(AttuneError, match="would stand on the server in plain text"):
        deploy(server, edited)
    Secret(value=SECRET).save("hf-token")
    run = start_in_pool(client, "docker", secrets, mlflow_tracking_uri="http://mlflow:5000")
    job = asyncio.run(job_of(DockerWorkerJobConfiguration, client.read_flow_run(run), "docker"))
    settings = DockerWorker(work_pool_name="docker")._build_container_settings(Daemon(), job)
    assert settings["image"] == "attune" and settings["volumes"] == ["attune:/srv/attune"]
    assert settings["cap_drop"] == ["ALL"] and settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["privileged"] is False
    environment = settings["environment"]
    own = {"ATTUNE_HOME": "/srv/attune", "MLFLOW_TRACKING_URI": "http://mlflow:5000", "HF_TOKEN": SECRET}
    assert environment.items() >= {**own, "PREFECT__FLOW_RUN_ID": str(run)}.items()
    assert str(server.home) not in json.dumps(environment), "no folder of the worker's machine"
    assert settings["command"].split() == ["prefect", "flow-run", "execute"], "as each worker here runs it"


def test_a_job_of_the_kubernetes_pool_is_one_that_kubernetes_knows_and_names_its_secrets_only(
    server: PrefectServer, client: SyncPrefectClient, deployed: None
) -> None:
    from kubernetes_asyncio.client import ApiClient
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    variables = {"repository": "https://example.org/attune.git", "memory_limit": "16Gi"}
    run = start_in_pool(client, "kubernetes", {}, **variables)
    job = asyncio.run(job_of(KubernetesWorkerJobConfiguration, client.read_flow_run(run), "kubernetes"))
    manifest = job.job_manifest
    api = ApiClient.__new__(ApiClient)  # without a configuration of a cluster
    read = api._ApiClient__deserialize(json.loads(json.dumps(manifest)), "V1Job")
    pod_only = {"parallelism", "completions"}  # Prefect asks for these two where Kubernetes passes over them
    spec = manifest["spec"]["template"]["spec"]
    again = api.sanitize_for_serialization(read)["spec"]["template"]["spec"]
    assert again == {key: value for key, value in spec.items() if key not in pod_only}, "no field is misspelt"
    (container,) = spec["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
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
    assert [process.wait(60) for process in pods] == [0, 0, 0]
    assert pod("e").wait(60) == 0, "later ones need no repository"
    assert [path.name for path in tmp_path.iterdir()] == ["attune"]
    assert Project(folder).git("status", "--porcelain") == ""


def test_an_event_starts_the_run_for_new_data(server: PrefectServer, client: SyncPrefectClient, deployed: None) -> None:
    event = Event(event="attune.data.arrived", resource={"prefect.resource.id": "attune.data"})
    server.post("events", [event.model_dump(mode="json")])
    until_true(lambda: runs_of(client, "attune-retrain/new-data"), 30)
    assert runs_of(client, "attune-retrain/new-data")[0].parameters["refresh"] is True


class Daemon:
    """What the Docker worker asks a daemon before it makes a container."""

    def version(self) -> dict[str, str]:
        return {"Version": "28.0.0"}


def runs_of(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    made = client.read_deployment_by_name(name)
    of_deployment = FlowRunFilter.model_validate({"deployment_id": {"any_": [made.id]}})
    return sorted(client.read_flow_runs(flow_run_filter=of_deployment), key=lambda run: str(run.expected_start_time))


def start_in_pool(client: SyncPrefectClient, kind: str, env: dict[str, str], **variables: str) -> UUID:
    """Start a run in a work pool of another kind, made from its template as docs/containers.md says."""
    template = json.loads((PROJECT / "work_pools" / f"{kind}.json").read_text())
    template["variables"]["properties"]["env"]["default"] = env
    client.create_work_pool(WorkPoolCreate(name=kind, type=kind, base_job_template=template))
    nightly = client.read_deployment_by_name("attune-retrain/nightly")
    client.update_deployment(nightly.id, DeploymentUpdate(work_pool_name=kind, job_variables=variables))
    return start(client, "attune-retrain/nightly")


async def job_of(kind: Any, run: FlowRun, pool: str) -> Any:
    """Return the job that a worker of the pool would make of a run."""
    async with get_client() as client:
        work_pool = await client.read_work_pool(pool)
        return await kind.resolve_for_flow_run(run, client=client, work_pool=work_pool, worker_name="worker")
