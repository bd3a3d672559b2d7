"""Open a pretrained model that `ingest` brought in: safetensors weights, no network, no code of its own."""

from pathlib import Path
from typing import Any

from stages.common.errors import AttuneError


def open_tokenizer(folder: Path, key: str) -> Any:
    """Return the tokenizer of a model's folder.

    Raises:
        AttuneError: if there is none that transformers can read; `key` names the params to correct.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unsuitable(key, "tokenizer", error) from None


def open_model(folder: Path, kind: str, key: str) -> Any:
    """Return a model for inference, float32, on the GPU if there is one.

    Args:
        folder: holds config.json and safetensors weights.
        kind: the class of transformers that loads it, such as AutoModelForMaskedLM.
        key: names the params to correct.

    Raises:
        AttuneError: if it is another kind of model, or part of its weights is missing and would be random.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, told = getattr(transformers, kind).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise _unsuitable(key, "model", error) from None
    if missing := sorted(told["missing_keys"]):
        raise AttuneError(
            f"{key}: weights of this model's head are missing ({missing[0]} and so on): it was not trained for this",
            f"name a model whose folder {kind} can load whole: a sentence encoder, say, has no language-model head",
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _unsuitable(key: str, what: str, error: Exception) -> AttuneError:
    said = " ".join(str(error).split())
    return AttuneError(
        f"{key}: transformers cannot open the {what} there ({type(error).__name__}: {said[:300]})",
        "name a folder with config.json, .safetensors weights and the tokenizer's files, of an architecture that is "
        "part of transformers",
    )
