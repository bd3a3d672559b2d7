"""`python -m flows.deploy`: `prefect deploy --all`, with the work pool and the variable that prefect.yaml needs."""

import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from flows.command import program
from flows.prefect_server import named_server
from stages.common.errors import AttuneError

POOL, VARIABLE = "attune", "attune_work_pool"  # the variable names the pool; a person may have it name another


@program("interrupted; `make deploy` may be repeated")
def main() -> None:
    """Deploy; exit status 0 if all deployments of prefect.yaml are on the server."""
    deploy_all()


def deploy_all() -> None:
    """Deploy what prefect.yaml declares, to the server that PREFECT_API_URL names.

    Raises:
        AttuneError: if no server is named or answers, a secret would be stored in plain text, or Prefect fails.
    """
    from prefect.client.orchestration import get_client

    if not named_server():  # Prefect would deploy to a server for this program alone
        fix = "`make services` starts one here, which `make deploy` finds; for another: export PREFECT_API_URL=http://HOST:4200/api"
        raise AttuneError("PREFECT_API_URL is not set", fix)
    for deployment in YAML(typ="safe", pure=True).load(Path("prefect.yaml"))["deployments"]:
        if "prefect.blocks." in str(deployment.get("work_pool")):
            what = f"prefect.yaml: {deployment['name']}: a block in work_pool would stand on the server in plain text"
            raise AttuneError(what, "have it in the template of the pool, which workers fill in: docs/containers.md")
    with get_client(sync_client=True) as client:
        variable = client.read_variable_by_name(VARIABLE)
        pools = [pool.name for pool in client.read_work_pools()]
    if variable is None:
        if POOL not in pools:
            _prefect("work-pool", "create", POOL, "--type", "process")
        _prefect("variable", "set", VARIABLE, POOL)
    _prefect("deploy", "--all")


def _prefect(*arguments: str) -> None:
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "ERROR"}  # it warns of each variable that is left to workers
    environment.pop("ATTUNE_HOME", None)  # else this machine's folder would be written into the pull steps
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise AttuneError(f"prefect {' '.join(arguments)} failed", "see what it says above")


if __name__ == "__main__":
    sys.exit(main())
