"""What MLflow serves: the file is logged beside the model, with the few files of Attune that it imports.

mlflow models serve -m models:/NAME@champion --env-manager local
mlflow.pyfunc.load_model("models:/NAME@champion", model_config={"variant": "int8"}).predict(["A text."])
"""

import json
import re
import sys
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from stages.serving import answers, backends
from stages.tasks.base import Refused

JSON = re.compile(r'application/json\s*(;\s*charset="?utf-8"?\s*)?', re.IGNORECASE)
MAX_BYTES = 2**20  # a second of tokenizing at most, some hundred MiB of memory; more is work for flows.predict
PATIENCE = 0.9  # of the time after which MLflow gives up on an answer, while its thread would work on for nobody


class ServedModel(PythonModel):
    """Texts in; out a table (or JSON) of answers, with the keys of the task's `signature`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the form of the model that `variant` of the configuration names; null: ONNX where there is one."""
        if not Path(backends.__file__).is_relative_to(Path(__file__).parent):
            warnings.warn(f"the code of {backends.__file__} answers, not the model's own", stacklevel=2)
        parts = {name: Path(path) for name, path in context.artifacts.items()}
        package = backends.Package(parts["model"], parts.get("exported"), parts.get("serving"))
        config = context.model_config or {}
        self.predictor = backends.Predictor(package, config.get("variant"), config.get("threads"))
        self._lock = Lock()  # one request has all threads; and tokenizers are not made for several at once
        server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
        if server:
            # On its own it answers nulls and numbers as if they were texts, a missing content type or deeply nested
            # JSON with status 500, broken CSV with a stack trace, and quotes the texts in its errors.
            def invocations(body: bytes, content_type: str | None, *_: Any) -> Any:
                status, content = self.respond(body, content_type)
                return server.InvocationsResponse(json.dumps(content), status, "application/json")

            server.invocations = invocations

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the answers as a table; texts may also come as a list, a series or a dict of columns."""
        if isinstance(model_input, dict):
            model_input = pd.DataFrame(model_input)
        if isinstance(model_input, pd.DataFrame):
            rows = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
        else:
            rows = [model_input] if isinstance(model_input, str) else list(model_input)
        try:
            question = answers.read_question({"inputs": rows, "params": params}, self.predictor.task)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        try:
            with self._lock:
                rows = answers.answers(self.predictor, question)
        except Refused as refusal:
            raise MlflowException.invalid_parameter_value(str(refusal)) from None
        columns = self.predictor.task.signature
        texts = {name: object for name, kind in columns.items() if "?" in kind}
        return pd.DataFrame(rows, columns=[*columns]).astype(texts).where(lambda table: table.notna(), None)

    def respond(self, body: bytes, content_type: str | None) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of the answer to an HTTP request."""
        if not JSON.fullmatch(content_type or ""):
            return 415, _refusal("the Content-Type must be application/json")
        if len(body) > MAX_BYTES:
            return 413, _refusal(f"the body has more than {MAX_BYTES:,} bytes: send fewer texts at a time")
        try:
            question = answers.read_question(body, self.predictor.task)
        except ValueError as error:
            return 400, _refusal(str(error))
        if not self._lock.acquire(timeout=PATIENCE * MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()):
            return 503, _refusal("too much to do at the moment: ask again later", "TEMPORARILY_UNAVAILABLE")
        try:
            return 200, {"predictions": answers.answers(self.predictor, question)}
        except Refused as refusal:
            return 400, _refusal(str(refusal)[:190])
        finally:
            self._lock.release()


def _refusal(message: str, code: str = "INVALID_PARAMETER_VALUE") -> dict[str, Any]:
    return {"error_code": code, "message": message}  # in the form of MLflow's own


mlflow.models.set_model(ServedModel())
