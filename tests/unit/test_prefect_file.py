"""prefect.yaml goes with Prefect's own models, which pass over an unknown key, and with the project's flows."""

from typing import Any

import jsonschema
import pytest
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from ruamel.yaml import YAML

from tests.projects import PROJECT

FILE: dict[str, Any] = YAML(typ="safe").load(PROJECT / "prefect.yaml")


def test_it_has_no_key_that_prefect_does_not_know() -> None:
    schema = PrefectYamlModel.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False
    jsonschema.validate(FILE, schema)
    with pytest.raises(jsonschema.ValidationError, match="shedules"):
        jsonschema.validate({**FILE, "deployments": [{"name": "nightly", "shedules": []}]}, schema)


@pytest.mark.parametrize("deployment", FILE["deployments"], ids=lambda deployment: deployment["name"])
def test_its_parameters_are_those_of_its_flow(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    schema = parameter_schema(load_flow_from_entrypoint(deployment["entrypoint"])).model_dump(mode="json")
    assert set(deployment["parameters"]) <= set(schema["properties"])
    validate(deployment["parameters"], schema, raise_on_error=True, ignore_required=True)
