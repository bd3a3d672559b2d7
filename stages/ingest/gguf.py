"""A language model in llama.cpp's format to a folder of transformers, tensor by tensor.

transformers itself takes a model that it has loaded from GGUF for a quantised one, and cannot save it; and it holds all
of the weights. Here they are written as they are made, in float32, into one safetensors file.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.display import listed
from stages.common.errors import AttuneError

ONE_TO_ONE = ("TensorProcessor", "LlamaTensorProcessor", "GPT2TensorProcessor", "Gemma2TensorProcessor")


def convert_gguf(file: Path, target: Path, origin: str) -> None:
    """Write config, tokenizer (with its chat template) and weights of a GGUF file into a folder.

    An AttuneError if transformers does not know the architecture, or tensors are missing, unknown or damaged.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with file.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise AttuneError(f"{origin}: this is no GGUF file", "copy or download it again")
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        config.__dict__.pop("quantization_config", None)
        config.dtype = "float32"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        if config.tie_word_embeddings:
            shapes.pop("lm_head.weight", None)
        _write(_tensors(file, model, config, origin), shapes, target / "model.safetensors", origin)
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError, TypeError) as error:
        fix = "use the model's own folder (safetensors), or a GGUF file of a Llama, Qwen, Gemma, Phi or GPT-2"
        raise AttuneError(f"{origin}: this GGUF file cannot be read: {str(error)[:200]}", fix) from None
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(target)


def _tensors(file: Path, model: Any, config: Any, origin: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the model's tensors by their names in transformers, in the order of the file."""
    from gguf import GGUFReader, dequantize  # type: ignore[import-untyped]
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    reader = GGUFReader(file)
    architecture = str(reader.fields["general.architecture"].contents())
    kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    if kind.__name__ not in ONE_TO_ONE:
        raise ValueError(f"the architecture {architecture!r} keeps several weights in one tensor")
    processor = kind(config=config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    unknown = [tensor.name for tensor in reader.tensors if tensor.name not in names and "rope" not in tensor.name]
    if unknown:
        raise ValueError(f"transformers has no place for {listed(unknown, 3)}")
    for tensor in reader.tensors:
        if tensor.name in names:
            values = dequantize(tensor.data, tensor.tensor_type)
            yield names[tensor.name], processor.process(weights=values, name=tensor.name).weights


def _write(
    tensors: Iterator[tuple[str, np.ndarray]], shapes: Mapping[str, tuple[int, ...]], path: Path, origin: str
) -> None:
    """Write a safetensors file of float32 tensors with these shapes by name, each as it comes.

    The format: https://huggingface.co/docs/safetensors. Its own library takes all tensors at once.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(shapes.items()):
        begin, end = end, end + 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    missing = dict(shapes)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + end)
        for name, values in tensors:
            if missing.pop(name, None) != values.shape:
                raise ValueError(f"{name} is {[*values.shape]}, and {[*shapes.get(name, ())]} by its configuration")
            out.seek(8 + len(text) + header[name]["data_offsets"][0])
            out.write(np.ascontiguousarray(values, dtype="<f4").tobytes())
    if missing:
        raise ValueError(f"{len(missing)} of {len(shapes)} tensors are not there: {listed(sorted(missing), 3)}")
