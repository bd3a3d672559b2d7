"""Bring in what augmentation needs besides the texts: WordNet's files, and models, as files by allow-lists."""

from pathlib import Path

from stages.common.digests import sha256_file
from stages.common.errors import AttuneError
from stages.common.params import FolderSource
from stages.common.pipeline.stage import write_json
from stages.ingest.base_model import ALLOWED, check_model, check_tokenizer_and_code
from stages.ingest.expansion import Workspace
from stages.ingest.folders import bring_folder, files_of

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
WORDNET_NEEDED = (  # by augment.synonyms
    *(f"{kind}.{part}" for kind in ("data", "index") for part in PARTS_OF_SPEECH),
    *(f"{part}.exc" for part in PARTS_OF_SPEECH),
    "cntlist.rev",
)
# wndb(5WN): the database itself, and what readers such as NLTK's look at besides
WORDNET = (*WORDNET_NEEDED, "index.sense", "lexnames", "cntlist", "*.vrb", "verb.Framestext", "LICENSE*", "README")
# Seq2seq models, and the vocabularies that CTranslate2 keeps beside its weights.
VOCABULARIES = ("shared_vocabulary", "source_vocabulary", "target_vocabulary")
RESOURCE_MODEL = (
    *ALLOWED,
    "target.spm",
    "target_vocab.json",
    "generation_config.json",
    *(f"{name}.*" for name in VOCABULARIES),
    "model.bin",
)


def bring_resources(named: dict[str, FolderSource], target: Path, workspace: Workspace) -> None:
    """Bring each named resource into a folder of `target`; write `resources.json`: origins, commits, SHA-256 of files.

    Raises:
        AttuneError: if one cannot be had, or is not what its use needs.
    """
    target.mkdir(parents=True)
    report: dict[str, object] = {}
    for name, source in named.items():
        print(f"  {name}: {source.origin}", flush=True)
        folder = target / name
        commit = bring_folder(source, WORDNET if name == "wordnet" else RESOURCE_MODEL, folder, workspace)
        if name != "wordnet":
            _check_model(source, folder, name)
        elif missing := [name for name in WORDNET_NEEDED if not (folder / name).exists()]:
            raise AttuneError(
                f"{source.origin}: no WordNet there: {', '.join(missing)} not found", "name the folder called dict"
            )
        hashes = {file: sha256_file(folder / file) for file in files_of(folder)}
        report[name] = {"origin": source.origin, "commit": commit, "sha256": hashes}
    write_json(report, target / "resources.json")


def _check_model(source: FolderSource, folder: Path, name: str) -> None:
    weights = folder / "model.bin"
    if weights.exists() and {Path(file).stem for file in files_of(folder)} & set(VOCABULARIES):  # of CTranslate2
        check_tokenizer_and_code(source, folder)
        return
    # Any other .bin file is a pickle of PyTorch's, which runs code when it is read; nothing here reads one.
    weights.unlink(missing_ok=True)
    check_model(source, folder, "masked language model" if name == "masked_lm" else "translation model")
