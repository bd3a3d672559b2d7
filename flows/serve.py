"""`python -m flows.serve MODEL`: MLflow's server of a registered model; of a language model, with a chat beside it.

`/invocations`, `/ping` and all else is MLflow's own app. The code that answers is that which was registered with the
model: nothing of Attune is imported here before it.
"""

import argparse
import re
import sys
from typing import Any


def main() -> None:
    """Serve a model until the process is told to end; what it has begun to answer, it answers."""
    import uvicorn
    from mlflow.exceptions import MlflowException

    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="its address in MLflow: models:/NAME@champion, models:/NAME/3")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    options = parser.parse_args()
    try:
        app = app_of(options.model)
    except (MlflowException, ValueError, OSError) as error:  # no such version, a template that was changed, …
        reason = str(error).partition("\n")[0][:300]
        sys.exit(f"error: {options.model} cannot be served: {reason}\n  → `make ui` shows which versions there are")
    uvicorn.run(app, host=options.host, port=options.port, access_log=False)


def app_of(address: str) -> Any:
    """Return the app of a model by its address; of one that has a chat, with its routes in front of MLflow's."""
    from fastapi import FastAPI
    from mlflow.pyfunc import scoring_server

    for name in [name for name in sys.modules if name.partition(".")[0] == "stages"]:
        del sys.modules[name]  # the checkout's, which `flows` has brought: the model's own is to answer
    model = scoring_server.load_model_with_mlflow_config(address)
    app, predictor = FastAPI(openapi_url=None), model.unwrap_python_model().predictor
    named = re.match(r"models:/([^/@]+)", address)
    if routes := predictor.task.routes(predictor.network, predictor.folder, named[1] if named else "model"):
        app.include_router(routes)
    app.mount("/", scoring_server.init(model))
    return app


if __name__ == "__main__":
    main()
