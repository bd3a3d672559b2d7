"""A GGUF file becomes the model that it was made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stages.common.errors import AttuneError
from stages.ingest.gguf import convert_gguf
from stages.ingest.scratch import CHATML

HIDDEN, LAYERS, HEADS, GROUPS = 64, 2, 4, 2
TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>", *(chr(number) for number in range(33, 127)), "Ġ", "Ċ", "th", "the"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key weights in the order of llama.cpp's converter."""
    shape = (heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return weights.reshape(shape).swapaxes(1, 2).reshape(weights.shape)


def make_gguf(file: Path, quantized: bool = False, leave_out: str = "", architecture: str = "llama") -> Any:
    """Write a tiny Llama as llama.cpp does; return the model."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=GROUPS, max_position_embeddings=128, tie_word_embeddings=True,
    )).eval()  # fmt: skip
    writer = GGUFWriter(file, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHATML)
    for name, value in model.state_dict().items():
        weights = value.numpy()
        if name == "lm_head.weight":
            continue
        short = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name)
        if not short:
            _, _, number, part = name.removesuffix(".weight").split(".", 3)
            short = f"blk.{number}.{NAMES[part]}.weight"
            if part.endswith(("q_proj", "k_proj")):
                weights = permuted(weights, HEADS if part.endswith("q_proj") else GROUPS)
        if short == leave_out:
            continue
        if quantized and weights.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(short, quantize(weights, kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.mark.parametrize(("quantized", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_the_model_of_a_gguf_file_is_the_one_that_it_was_made_of(
    tmp_path: Path, quantized: bool, tolerance: float
) -> None:
    file, target = tmp_path / "in" / "tiny.gguf", tmp_path / "out"
    for folder in (file.parent, target):
        folder.mkdir()
    model = make_gguf(file, quantized)
    convert_gguf(file, target, "tiny.gguf")
    made = AutoModelForCausalLM.from_pretrained(target, use_safetensors=True).eval()
    assert made.dtype == torch.float32 and not hasattr(made.config, "quantization_config")
    ids = torch.tensor([[1, 5, 9, 70, 33, 2]])
    with torch.no_grad():
        assert torch.allclose(made(ids).logits, model(ids).logits, atol=tolerance)
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template
    assert tokenizer.decode(tokenizer("the<|im_end|>")["input_ids"]) == "the<|im_end|>"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(b"PK\x03\x04"), "this is no GGUF file"),
        (lambda file: make_gguf(file, leave_out="blk.1.ffn_up.weight"), "1 of 20 tensors are not there"),
        (lambda file: make_gguf(file, architecture="nemotronx"), "cannot be read"),
        (lambda file: (make_gguf(file), file.write_bytes(file.read_bytes()[:50_000])), "cannot be read"),
    ],
)
def test_a_file_that_is_damaged_or_of_another_kind_is_named(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(file := tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    with pytest.raises(AttuneError, match=message):
        convert_gguf(file, tmp_path / "out", "tiny.gguf")
