"""A trained model as ONNX, that in 8 bits, and in bfloat16; the same model gives the same bytes."""

import json
import shutil
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.pipeline.stage import write_json
from stages.tasks.inference import MERGEABLE, adapter_of, load_classifier

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31 - 2**24  # protobuf writes no file of 2 GiB; some room for the graph beside the weights
EXAMPLE = (3, 7)  # texts and tokens that the model is traced with: like no size inside of a model
OPSET = 20  # the first with Gelu as one operator


def write_onnx(model: Path, file: Path) -> str | None:
    """Write a model, with its adapter merged, for any number of texts and tokens: token ids in, `logits` out.

    Attention is written out ("eager"): fused, it takes nodes for masks that no text has, and onnxruntime more time.
    Returns why it cannot be written so, in a sentence for people, if it cannot.
    """
    kind = adapter_of(model)
    if kind and kind not in MERGEABLE:
        return f"a model with {kind} cannot be merged into one graph: torch serves it"
    network = load_classifier(model)
    network = network.merge_and_unload() if kind else network
    if sum(weight.numel() * 4 for weight in network.state_dict().values()) > MOST_BYTES:
        return "its weights are over 2 GiB, more than one ONNX file holds"
    try:
        network.set_attn_implementation("eager")
        network.config.use_cache = False  # decoders would give it beside the logits
        graph = _traced(network, model)
    except Exception as error:  # torch has many ways to say that it does not know an architecture
        print(f"  torch.onnx: {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
        return f"torch cannot write {type(network).__name__} as ONNX ({type(error).__name__})"
    _write(graph, file)
    return None


def write_int8(source: Path, file: Path) -> str | None:
    """Write an ONNX model with weights of 8 bits, a scale for each output channel; activations follow as they come.

    Signed weights: processors multiply those with unsigned activations, and unsigned ones take three times as long. Of
    the 8 bits 7 are used (`reduce_range`): processors without VNNI, as in many laptops, add two products in 16 bits and
    cut what does not fit, so that the same file would answer otherwise there.
    Returns why the quantizer cannot make one, if it cannot.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        quantize_dynamic(onnx.load(source), file, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
        quantized = onnx.load(file)
    except Exception as error:
        file.unlink(missing_ok=True)
        print(f"  onnxruntime: {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
        return f"onnxruntime cannot quantize this model ({type(error).__name__})"
    _write(quantized, file)
    return None


def write_bf16(model: Path, folder: Path) -> str | None:
    """Write a model's folder with weights in bfloat16, half as large, as transformers and others load it.

    Returns why it cannot be written so, if it cannot.
    """
    import torch
    from safetensors.torch import load_file, save_file

    if adapter_of(model):
        return "its adapter is kept beside the weights: set finetune.merge_adapter: true"
    folder.mkdir(parents=True)
    for file in sorted(path for path in model.iterdir() if path.is_file()):
        if file.suffix == ".safetensors":
            weights = load_file(file)
            half = {name: part.bfloat16() if part.is_floating_point() else part for name, part in weights.items()}
            save_file(half, folder / file.name, metadata={"format": "pt"})
        else:
            shutil.copyfile(file, folder / file.name)
    config = folder / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) | {"dtype": str(torch.bfloat16).rpartition(".")[2]}
    write_json(settings, config)
    return None


def _traced(network: Any, model: Path) -> "onnx.ModelProto":
    import torch
    from transformers import AutoTokenizer

    accepted = signature(network.forward).parameters  # some tokenizers make more than the model takes
    names = [name for name in AutoTokenizer.from_pretrained(model).model_input_names if name in accepted]
    example = {name: torch.zeros(EXAMPLE, dtype=torch.int64) for name in names}
    example["attention_mask"] = torch.ones(EXAMPLE, dtype=torch.int64)
    program = torch.onnx.export(
        network,
        kwargs=example,
        dynamo=True,
        opset_version=OPSET,
        output_names=["logits"],  # of what some architectures give beside them, nothing is kept
        dynamic_shapes={name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in example},
        verbose=False,
    )
    assert program is not None
    graph = program.model_proto
    del graph.graph.output[1:]
    return graph


def _write(graph: "onnx.ModelProto", file: Path) -> None:
    _strip(graph)
    file.write_bytes(graph.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:
    """Remove from a protobuf message, and from all in it, what only says where it came from.

    That is source files, stack traces and names of this machine, and shapes of values on the way, which onnxruntime
    works out itself (and the quantizer takes offence at).
    """
    for name in ("doc_string", "metadata_props", "value_info"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type and field.name != "initializer":  # those are long, and stripped below
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                _strip(part)
    for weight in getattr(message, "initializer", ()):
        weight.ClearField("doc_string")
        weight.ClearField("metadata_props")
