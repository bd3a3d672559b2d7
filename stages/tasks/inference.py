"""What every use of a saved model needs: its weights, its labels, its size, the number format, batches of rows.

Nothing of Attune is imported here: the file goes into the registry with each model, to be served with it.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl
    from transformers import PreTrainedTokenizerBase

MERGEABLE = ("lora", "adalora", "ia3")
ADAPTER = "adapter"  # below a model: the folder of a language model's adapter, which is merged into the weights


def load_classifier(folder: Path) -> Any:
    """Return a classifier: see `load_model`."""
    from transformers import AutoModelForSequenceClassification

    return load_model(folder, AutoModelForSequenceClassification)


def load_model(folder: Path, kind: Any) -> Any:
    """Return the model, of an Auto class of transformers, in float32, in evaluation mode.

    A ValueError if an adapter's weights are not in safetensors.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig

    if not adapter_of(folder):
        return kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").exists():
        raise ValueError(f"{folder} has no adapter_model.safetensors")  # peft would look for a pickle
    config = AutoConfig.from_pretrained(folder)
    base = kind._model_mapping[type(config)].from_pretrained(
        None, config=config, dtype=torch.float32, state_dict=load_file(folder / "model.safetensors")
    )
    base.name_or_path = base.config.name_or_path = str(folder)  # MLflow would ask the Hub for a model of no name
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # between peft and transformers
        return PeftModel.from_pretrained(base, str(folder)).eval()


def adapter_of(folder: Path) -> str | None:
    """Return peft's name of the adapter beside a model's weights (`lora`, `prefix_tuning` …), None without one."""
    file = folder / "adapter_config.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["peft_type"]).lower() if file.exists() else None


def labels_of(folder: Path) -> list[str]:
    """Return a saved model's labels, in the order of its outputs."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # transformers does not write its own default
    return [names[str(index)] for index in range(len(names))]


def longest_of(folder: Path) -> int:
    """Return how many tokens of a text a saved model reads."""
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(folder).model_max_length)


def size_of(folder: Path) -> dict[str, int]:
    """Return the number of `parameters` in a model's safetensors files (adapters included), and their `bytes`."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    parameters = 0
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            parameters += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return {"parameters": parameters, "bytes": sum(file.stat().st_size for file in files)}


def wants_bf16(setting: bool | Literal["auto"]) -> bool:
    """Return whether to use bfloat16 autocast: as set, or where the hardware multiplies it natively."""
    if setting != "auto":
        return setting
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, Arm


def texts_and_pairs(rows: "pl.DataFrame") -> tuple[list[str], list[str] | None]:
    """Return the texts of some records and their second texts: none at all, or "" for a row that lacks its own."""
    pairs = rows["text_pair"]
    return rows["text"].to_list(), pairs.fill_null("").to_list() if pairs.count() else None


def batches_by_length(
    tokenizer: "PreTrainedTokenizerBase", rows: "pl.DataFrame", batch_size: int, max_length: int
) -> Iterator[tuple[list[int], Any]]:
    """Yield (positions of the rows, padded tensors [b x s]), the longest rows first."""
    texts, pairs = texts_and_pairs(rows)
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    for positions, batch in longest_first(encoded, batch_size):
        yield positions, tokenizer.pad(batch, return_tensors="pt")


def longest_first(columns: Mapping[str, Any], batch_size: int) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Yield (positions of the rows, their columns): rows of similar length together, so that little is padding."""
    order = sorted(range(len(columns["input_ids"])), key=lambda row: -len(columns["input_ids"][row]))
    for start in range(0, len(order), batch_size):
        positions = order[start : start + batch_size]
        yield positions, {name: [values[row] for row in positions] for name, values in columns.items()}
