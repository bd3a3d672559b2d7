"""What MLflow serves: the file is logged beside the model, with the few files of Attune that it imports.

mlflow models serve -m models:/NAME@champion --env-manager local
mlflow.pyfunc.load_model("models:/NAME@champion", model_config={"variant": "int8"}).predict(["A text."])
"""

import json
import sys
import time
import warnings
from pathlib import Path
from threading import Lock
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from stages.common.serving import answers, classifier

SERVER = "mlflow.pyfunc.scoring_server"
AT_A_TIME = 16  # texts
LET_IN = 0.001  # seconds
PATIENCE = 0.9  # of the time after which MLflow gives up on an answer, while its thread would work on


class ServedClassifier(PythonModel):
    """Texts in; out a table (or JSON) of `label`, `score`, `abstained` and `probabilities` by label."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the form of the model that `variant` of the configuration names; null: ONNX where there is one."""
        if not Path(classifier.__file__).is_relative_to(Path(__file__).parent):
            warnings.warn(f"the code of {classifier.__file__} answers, not the model's own", stacklevel=2)
        parts = {name: Path(path) for name, path in context.artifacts.items()}
        package = classifier.Package(parts["model"], parts.get("exported"), parts.get("serving"))
        config = context.model_config or {}
        self._classifier = classifier.Classifier(package, config.get("variant"), config.get("threads"))
        self._lock = Lock()  # one request has all threads; and tokenizers are not made for several at once
        if server := sys.modules.get(SERVER):
            _take_over(server)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the answers as a table; texts may also come as a list, a series or a dict of columns."""
        if isinstance(model_input, pd.DataFrame):
            rows: Any = model_input.astype(object).where(model_input.notna(), None).to_dict("list")
        elif isinstance(model_input, dict):
            rows = {name: _plain(values) for name, values in model_input.items()}
        else:
            rows = _plain(model_input)
        try:
            found = self.answers(answers.read_question(rows, params))
        except answers.Refused as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        columns = ["label", "score", "abstained", "probabilities"]
        return pd.DataFrame(found, columns=columns).astype({"label": object}).where(lambda table: table.notna(), None)

    def respond(self, body: bytes, content_type: str | None) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of the answer to an HTTP request."""
        kind, _, charset = (content_type or "").lower().replace(" ", "").replace('"', "").partition(";")
        if kind != "application/json" or charset not in ("", "charset=utf-8"):
            return 415, _refusal("the Content-Type must be application/json")
        if len(body) > answers.MAX_BYTES:
            return 413, _refusal(f"the body has more than {answers.MAX_BYTES:,} bytes: send fewer texts at a time")
        until = time.monotonic() + PATIENCE * MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()
        try:
            return 200, {"predictions": self.answers(answers.read_request(body), until)}
        except answers.Refused as error:
            return 400, _refusal(str(error))
        except TimeoutError:
            message = "too much to do at the moment: ask again later, or with fewer texts"
            return 503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message}

    def answers(self, question: answers.Question, until: float = float("inf")) -> list[dict[str, Any]]:
        """Return an answer per text, as plain values.

        A few texts at a time, with others let in between: who asks for much, or has hung up, must not stop the server.

        Raises:
            TimeoutError: if there is more to do at the time `until` (of `time.monotonic`).
        """
        found: list[dict[str, Any]] = []
        for some in question.parts(AT_A_TIME):
            with self._lock:
                if time.monotonic() > until:
                    raise TimeoutError
                found += answers.answers(self._classifier, some)
            if len(question.texts) > AT_A_TIME:
                time.sleep(LET_IN)  # or this thread would have the lock again before any other has woken
        return found


def _plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _refusal(message: str) -> dict[str, Any]:
    return {"error_code": "INVALID_PARAMETER_VALUE", "message": message}  # in the form of MLflow's own


def _take_over(server: Any) -> None:
    """Have requests to MLflow's server read by `respond`.

    On its own it answers nulls and numbers as if they were texts, a missing content type or deeply nested JSON with
    status 500, broken CSV with a stack trace, and quotes the texts in its errors.
    """
    original = server.invocations

    def invocations(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
        try:
            respond = model.unwrap_python_model().respond
        except (AttributeError, MlflowException):  # some other model
            return original(data, content_type, model, input_schema)
        status, content = respond(data, content_type)
        return server.InvocationsResponse(json.dumps(content), status, "application/json")

    server.invocations = invocations


mlflow.models.set_model(ServedClassifier())
