"""Bring a model in: safetensors weights and tokenizer files by an allow-list, never code."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, FolderSource
from stages.ingest.expansion import Limits
from stages.ingest.folders import bring_folder, files_of

ALLOWED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")  # any of them
CONFIGS = ("config.json", "tokenizer_config.json")  # both can ask for code

Use = Literal["text classifier", "masked language model", "translation model"]
HINTS: dict[Use, str] = {
    "text classifier": "use an encoder such as bert, roberta, distilbert, deberta-v2 or modernbert",
    "masked language model": "use one such as bert, roberta, distilbert or xlm-roberta",
    "translation model": "use one such as marian, m2m_100, mbart or t5",
}


def bring_model(source: BaseModelSource, target: Path, downloads: Path, limits: Limits) -> str | None:
    """Copy a pretrained encoder's files to `target`; return the commit of a hub's repository.

    Raises:
        AttuneError: if there is no safetensors file or tokenizer, a hash differs, or the model needs code of its own.
    """
    commit = bring_folder(source, ALLOWED, target, downloads, limits)
    check_parts(source, files_of(target), TOKENIZERS)
    check_loadable(source, target, "text classifier")
    return commit


def check_parts(source: FolderSource, names: list[str], tokenizers: tuple[str, ...]) -> None:
    """Raise AttuneError unless there are weights, a config and a tokenizer."""
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise AttuneError(
            f"{source.origin}: no model there: it needs config.json and a .safetensors file, "
            f"and there is {', '.join(names) or 'nothing'}",
            "name the folder that holds them; weights in .bin files must be converted to safetensors first",
        )
    check_tokenizer(source, names, tokenizers)


def check_tokenizer(source: FolderSource, names: list[str], tokenizers: tuple[str, ...]) -> None:
    """Raise AttuneError unless there is a tokenizer."""
    if not set(tokenizers) & set(names):
        raise AttuneError(
            f"{source.origin}: no tokenizer there: it needs one of {', '.join(tokenizers)}",
            "copy the tokenizer's files into the model's folder",
        )


def check_no_code(source: FolderSource, target: Path) -> None:
    """Raise AttuneError if a model asks for code of its own."""
    for name in CONFIGS:
        if (target / name).exists() and "auto_map" in _config(target / name, source.origin):
            raise AttuneError(
                f"{source.origin}: its {name} asks for code of its own (auto_map), which is never run",
                "use a model whose architecture is part of transformers",
            )


def check_loadable(source: FolderSource, target: Path, use: Use) -> None:
    """Look at what loading the model would stumble over, before hours are spent on the way there.

    Raises:
        AttuneError: if it asks for code, its weights are damaged, or transformers cannot use it as `use`.
    """
    from safetensors import SafetensorError, safe_open

    check_no_code(source, target)
    for file in sorted(target.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as weights:
                weights.keys()
        except SafetensorError as error:
            raise AttuneError(
                f"{source.origin}: {file.name} is damaged ({error})", "copy the model's folder again"
            ) from None
    kind = _config(target / "config.json", source.origin).get("model_type")
    if kind not in _architectures(use):
        raise AttuneError(
            f"{source.origin}: config.json says model_type {kind!r}, of which transformers knows no {use}", HINTS[use]
        )


def _architectures(use: Use) -> Container[object]:
    from transformers.models.auto import modeling_auto

    match use:
        case "text classifier":
            return modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        case "masked language model":
            return modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        case "translation model":
            return modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES


def _config(file: Path, origin: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AttuneError(f"{origin}: {file.name} is not JSON ({error})", "copy the model's folder again") from None
    if not isinstance(config, dict):
        raise AttuneError(f"{origin}: {file.name} is not a JSON object", "copy the model's folder again")
    return config
