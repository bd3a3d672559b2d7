"""Open a pretrained model that `ingest` brought in: safetensors weights, no network, no code of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import AttuneError


def open_tokenizer(folder: Path, key: str) -> Any:
    """Return the tokenizer of a model's folder; `key` names the params to correct.

    Raises:
        AttuneError: if there is none that transformers can read.
    """
    import transformers

    with _opening("tokenizer", key):
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def open_model(folder: Path, kind: str, key: str, tokenizer: Any) -> tuple[Any, int]:
    """Return a model for inference, float32, on the GPU if there is one; and its longest input in tokens.

    Args:
        folder: holds config.json and safetensors weights.
        kind: the class of transformers that loads it, such as AutoModelForMaskedLM.
        key: names the params to correct.
        tokenizer: the model's.

    Raises:
        AttuneError: if it is another kind of model, or part of its weights is missing and would be random.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with _opening("model", key):
        model, loading = getattr(transformers, kind).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if missing := sorted(loading["missing_keys"]):
        raise AttuneError(
            f"{key}: weights of this model's head are missing ({missing[0]} and so on): it was not trained for this",
            f"name a model whose folder {kind} can load whole: a sentence encoder, say, has no language-model head",
        )
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model, min(tokenizer.model_max_length, positions)


@contextmanager
def _opening(what: str, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split())
        raise AttuneError(
            f"{key}: transformers cannot open the {what} there ({type(error).__name__}: {message[:300]})",
            "name a folder with config.json, .safetensors weights and the tokenizer's files, of an architecture that "
            "is part of transformers",
        ) from None
