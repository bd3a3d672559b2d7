"""Bring in what augmentation needs besides the texts: WordNet's files, and models, as files by allow-lists."""

from pathlib import Path

from stages.common.digests import sha256_file
from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.common.stage import write_json
from stages.ingest.base_model import (
    ALLOWED,
    TOKENIZERS,
    check_loadable,
    check_no_code,
    check_parts,
    check_tokenizer,
)
from stages.ingest.expansion import Limits
from stages.ingest.folders import bring_folder, files_of

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
WORDNET_NEEDED = (  # by augment.synonyms
    *(f"{kind}.{part}" for kind in ("data", "index") for part in PARTS_OF_SPEECH),
    *(f"{part}.exc" for part in PARTS_OF_SPEECH),
    "cntlist.rev",
)
# wndb(5WN): the database itself, and what readers such as NLTK's look at besides
WORDNET = (
    *WORDNET_NEEDED,
    "index.sense",
    "lexnames",
    "cntlist",
    "frames.vrb",
    "sents.vrb",
    "sentidx.vrb",
    "verb.Framestext",
    "LICENSE",
    "LICENSE.txt",
    "citation.bib",
    "README",
)
# Tokenizers of seq2seq and masked language models, and the vocabularies that CTranslate2 keeps beside its weights.
RESOURCE_MODEL = (
    *ALLOWED,
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "generation_config.json",
    "shared_vocabulary.*",
    "source_vocabulary.*",
    "target_vocabulary.*",
    "model.bin",
)
RESOURCE_TOKENIZERS = (*TOKENIZERS, "source.spm")
VOCABULARIES = ("shared_vocabulary.json", "shared_vocabulary.txt", "source_vocabulary.json", "source_vocabulary.txt")


def bring_resources(named: dict[str, FolderSource], target: Path, downloads: Path, limits: Limits) -> dict[str, object]:
    """Bring each resource that is named into a folder of `target`, and write `resources.json` beside them.

    Args:
        named: where each is, by the name of its folder.
        target: a folder to make.
        downloads: folder that keeps downloads from run to run.
        limits: how large each may be.

    Returns:
        What `resources.json` holds: by name the origin, the commit and the SHA-256 of each file.

    Raises:
        AttuneError: if one cannot be had, or is not what its use needs.
    """
    target.mkdir(parents=True)
    report: dict[str, object] = {}
    for name, source in named.items():
        print(f"  {name}: {source.origin}", flush=True)
        folder = target / name
        if name == "wordnet":
            commit = bring_folder(source, WORDNET, folder, downloads, limits)
            _check_wordnet(source, files_of(folder))
        else:
            commit = bring_folder(source, RESOURCE_MODEL, folder, downloads, limits)
            _check_model(source, folder, name)
        hashes = {file: sha256_file(folder / file) for file in files_of(folder)}
        report[name] = {"origin": source.origin, "commit": commit, "sha256": hashes}
    write_json(report, target / "resources.json")
    return report


def _check_wordnet(source: FolderSource, names: list[str]) -> None:
    missing = [name for name in WORDNET_NEEDED if name not in names]
    if missing:
        raise AttuneError(
            f"{source.origin}: no WordNet there: {', '.join(missing)} not found", "name the folder called dict"
        )


def _check_model(source: FolderSource, folder: Path, name: str) -> None:
    names = files_of(folder)
    if "model.bin" in names and _is_ctranslate2(folder, names):
        check_no_code(source, folder)
        check_tokenizer(source, names, RESOURCE_TOKENIZERS)
        return
    # Any other .bin file is a pickle of PyTorch's, which runs code when it is read; nothing here reads one.
    (folder / "model.bin").unlink(missing_ok=True)
    check_parts(source, files_of(folder), RESOURCE_TOKENIZERS)
    check_loadable(source, folder, "masked language model" if name == "masked_lm" else "translation model")


def _is_ctranslate2(folder: Path, names: list[str]) -> bool:
    """Tell by its vocabularies and the head of model.bin: version (4 bytes), length (2), name of the model's spec."""
    with (folder / "model.bin").open("rb") as file:
        head = file.read(64)
    spec = head[6 : 6 + int.from_bytes(head[4:6], "little")].rstrip(b"\0")
    known = int.from_bytes(head[:4], "little") < 1000 and spec.isalnum() and spec.endswith(b"Spec")
    return known and "config.json" in names and bool(set(VOCABULARIES) & set(names))
