"""What MLflow serves a model with a prefix by: the file is logged beside the model, with `stages.tasks.loading`.

Every other model is logged as a pipeline of transformers, which knows of no prefix.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc import PythonModel, PythonModelContext

from stages.tasks.loading import load_classifier

BATCH = 64


class PrefixClassifier(PythonModel):
    """Texts in, the likeliest label and its probability out: a table as the pipeline gives it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load model and tokenizer from the logged folder."""
        from transformers import AutoTokenizer

        folder = Path(context.artifacts["model"])
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network = load_classifier(folder)

    def predict(
        self, context: PythonModelContext, model_input: list[str], params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return a table with the columns `label` and `score`; MLflow makes a list of whatever it is given."""
        import torch

        answers: list[tuple[int, float]] = []
        with torch.inference_mode():
            for start in range(0, len(model_input), BATCH):
                some = model_input[start : start + BATCH]
                batch = self._tokenizer(some, truncation=True, padding=True, return_tensors="pt")
                scores, chosen = self._network(**batch).logits.softmax(dim=-1).max(dim=-1)
                answers += zip(chosen.tolist(), scores.tolist(), strict=True)
        labels = self._network.config.id2label
        return pd.DataFrame([{"label": labels[at], "score": score} for at, score in answers])


mlflow.models.set_model(PrefixClassifier())
