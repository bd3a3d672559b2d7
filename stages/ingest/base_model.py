"""Bring a model in: safetensors weights and tokenizer files by an allow-list, never code."""

import json
from pathlib import Path
from typing import Any, Literal

from stages.common.display import listed
from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, FolderSource
from stages.ingest.expansion import Workspace
from stages.ingest.folders import bring_folder, files_of

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "source.spm")
ALLOWED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *TOKENIZERS,
)

Use = Literal["text classifier", "masked language model", "translation model"]
TABLES: dict[Use, str] = {  # of transformers: the types of models that can be used so
    "text classifier": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "masked language model": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "translation model": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}


def bring_model(source: BaseModelSource, target: Path, workspace: Workspace) -> str | None:
    """Copy a pretrained encoder's files to `target`; return the commit of a hub's repository.

    Raises:
        AttuneError: if there is no safetensors file or tokenizer, a hash differs, or the model needs code of its own.
    """
    commit = bring_folder(source, ALLOWED, target, workspace)
    check_model(source, target, "text classifier")
    return commit


def check_model(source: FolderSource, target: Path, use: Use) -> None:
    """Look at what loading the model would stumble over, before hours are spent on the way there.

    Raises:
        AttuneError: if a part is missing, it asks for code, its weights are damaged, or transformers cannot use it so.
    """
    from safetensors import SafetensorError, safe_open
    from transformers.models.auto import modeling_auto

    names = files_of(target)
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise AttuneError(
            f"{source.origin}: no model there: it needs config.json and a .safetensors file, "
            f"and there is {', '.join(names) or 'nothing'}",
            "name the folder that holds them; weights in .bin files must be converted to safetensors first",
        )
    check_tokenizer_and_code(source, target)
    for file in sorted(target.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as weights:
                weights.keys()
        except SafetensorError as error:
            raise AttuneError(
                f"{source.origin}: {file.name} is damaged ({error})", "copy the model's folder again"
            ) from None
    kind = _config(target / "config.json", source.origin).get("model_type")
    known = getattr(modeling_auto, TABLES[use])
    if kind not in known:
        raise AttuneError(
            f"{source.origin}: config.json says model_type {kind!r}, of which transformers knows no {use}",
            f"use one of {listed(sorted(known), 40)}",
        )


def check_tokenizer_and_code(source: FolderSource, target: Path) -> None:
    """Raise AttuneError if there is no tokenizer, or the model asks for code of its own."""
    if not set(TOKENIZERS) & set(files_of(target)):
        raise AttuneError(
            f"{source.origin}: no tokenizer there: it needs one of {', '.join(TOKENIZERS)}",
            "copy the tokenizer's files into the model's folder",
        )
    for name in ("config.json", "tokenizer_config.json"):
        if (target / name).exists() and "auto_map" in _config(target / name, source.origin):
            raise AttuneError(
                f"{source.origin}: its {name} asks for code of its own (auto_map), which is never run",
                "use a model whose architecture is part of transformers",
            )


def _config(file: Path, origin: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise AttuneError(f"{origin}: {file.name} is not a JSON object", "copy the model's folder again")
    return config
