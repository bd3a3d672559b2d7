"""A pretrained encoder with a new linear head, and its embeddings without one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
)

from stages.tasks.inference import batches_by_length, wants_bf16

DROPOUTS = (  # what configurations call their rates
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "classifier_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout", "seq_classif_dropout"),
    *("classifier_dropout_prob", "activation_dropout"),
)


def with_head(base: Path, names: Sequence[str], problem_type: str, dropout: float | None, seed: int) -> PreTrainedModel:
    """Return the base model with a new linear head of one output a name, in float32.

    Its attribute `new_weights` names those of the encoder that the base lacks: they are as new as the head, whose first
    weights the seed decides. `dropout` replaces every rate of the encoder; None keeps the model's own. `problem_type`
    is transformers' name of the loss, for whoever trains the saved model elsewhere.
    """
    of_number = dict(enumerate(names))
    config = AutoConfig.from_pretrained(
        base,
        id2label=of_number,
        label2id={name: index for index, name in of_number.items()},
        problem_type=problem_type,  # whatever the base was trained for
    )
    if dropout is not None:
        for name in DROPOUTS:
            if getattr(config, name, None) is not None:
                setattr(config, name, dropout)
    torch.manual_seed(seed)
    # The encoder alone first: a head that the base was saved with must not be taken for the new one.
    encoder, report = AutoModel.from_pretrained(
        base, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    torch.manual_seed(seed)
    model: PreTrainedModel = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].from_pretrained(
        None, config=config, dtype=torch.float32, state_dict=encoder.state_dict()
    )
    missing = (f"{model.base_model_prefix}.{name}" for name in report["missing_keys"])
    model.new_weights = sorted(name for name in missing if name in model.state_dict())  # a pooler, as a rule
    return model


def output_layer(model: Any) -> nn.Linear:
    """Return the linear layer that makes the logits of a model with a head; of peft's copies, the one that trains."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return [
        module
        for name, module in plain.named_modules()
        if isinstance(module, nn.Linear)
        and name.partition(".")[0] != plain.base_model_prefix
        and "original_module" not in name.split(".")  # peft trains a copy of the head
    ][-1]


@torch.inference_mode()
def embeddings(base: Path, rows: pl.DataFrame, batch_size: int, max_length: int) -> np.ndarray:
    """Return the mean of each row's last hidden states over its tokens, [rows x hidden] float32.

    Computed in bfloat16 autocast where the hardware has it: a linear probe does not notice, and it is done sooner.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModel.from_pretrained(base, dtype=torch.float32, use_safetensors=True).to(device).eval()
    result = np.zeros((rows.height, network.config.hidden_size), dtype=np.float32)
    for positions, batch in batches_by_length(tokenizer, rows, batch_size, max_length):
        batch.to(device)  # in place
        with torch.autocast(device, torch.bfloat16, enabled=wants_bf16("auto")):
            states = network(**batch).last_hidden_state.float()  # [b x s x d]
        mask = batch["attention_mask"].unsqueeze(-1)  # [b x s x 1]
        result[positions] = ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()
    return result
