"""compose.yaml, as far as it can be checked without Docker."""

import re
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.projects import PROJECT

COMPOSE = YAML(typ="safe").load(PROJECT / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_every_option_of_a_command_exists(name: str) -> None:
    command = list(map(str, SERVICES[name]["command"]))
    program = command[: 2 if command[0] == "mlflow" else 3]
    options = [argument.partition("=")[0] for argument in command if argument.startswith("--")]
    text = subprocess.check_output([sys.executable, "-m", *program, "--help"], text=True, timeout=60)
    assert options
    assert [option for option in options if not re.search(rf"{option}\b(?!-)", text)] == []


def test_no_password_is_written_down_and_a_missing_one_stops_everything() -> None:
    texts = [(PROJECT / name).read_text() for name in ("compose.yaml", "flows/services.conf")]
    assert not re.search(r"://[^/\s@:]+:[^/\s@]+@", "".join(texts)), "an address with a password"
    settings = [item for service in SERVICES.values() for item in service.get("environment", {}).items()]
    secrets = [value for key, value in settings if re.search("PASSWORD|SECRET|TOKEN|KEY", key)]
    assert len(secrets) == 3
    assert all(re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", value) for value in secrets)


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "ports" not in SERVICES["postgres"]


def test_mlflow_answers_to_the_name_that_the_worker_calls_it_by() -> None:
    address = SERVICES["worker"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    allowed = next(option for option in SERVICES["mlflow"]["command"] if option.startswith("--allowed-hosts="))
    assert address in allowed.partition("=")[2].split(",")
