"""A saved classifier from its folder, whether its adapter is inside of the weights or beside them.

Nothing of Attune is imported here: a prefix goes into the registry together with this file, to be served with it.
"""

import json
import warnings
from pathlib import Path
from typing import Any

MERGEABLE = ("lora", "adalora", "ia3")


def load_classifier(folder: Path) -> Any:
    """Return the model in float32, in evaluation mode, with the logits that it was saved with.

    Raises:
        ValueError: if an adapter's weights are not in safetensors.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoModelForSequenceClassification

    if not adapter_of(folder):
        return AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        ).eval()
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").exists():
        raise ValueError(f"{folder} has no adapter_model.safetensors")  # peft would look for a pickle
    config = AutoConfig.from_pretrained(folder)
    base = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].from_pretrained(
        None, config=config, dtype=torch.float32, state_dict=load_file(folder / "model.safetensors")
    )
    base.name_or_path = base.config.name_or_path = str(folder)  # MLflow would ask the Hub for a model of no name
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between peft and transformers
        return PeftModel.from_pretrained(base, str(folder)).eval()


def load_merged(folder: Path) -> Any:
    """Return the model as one of transformers alone, its adapter merged into the weights.

    Raises:
        ValueError: if it is a prefix, which has no place there.
    """
    kind = adapter_of(folder)
    if kind and kind not in MERGEABLE:
        raise ValueError(f"{kind} cannot be merged")
    model = load_classifier(folder)
    return model.merge_and_unload() if kind else model


def adapter_of(folder: Path) -> str | None:
    """Return peft's name of the adapter that lies beside a model's weights (`lora`, `prefix_tuning` …), if one does."""
    file = folder / "adapter_config.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["peft_type"]).lower() if file.exists() else None
