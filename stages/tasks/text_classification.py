"""Text classification: one label out of several for each text or pair of texts."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    EvalPrediction,
    PreTrainedModel,
)

from stages.tasks.bootstrap import DIGITS, confusion, scores_of
from stages.tasks.inference import batches_by_length, load_classifier, wants_bf16

DROPOUTS = (  # what configurations call their rates
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "classifier_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout", "seq_classif_dropout"),
    *("classifier_dropout_prob", "activation_dropout"),
)


def build_model(base: Path, labels: list[str], dropout: float | None, seed: int) -> PreTrainedModel:
    """Return the base model with a new linear head for these labels, in float32.

    Its attribute `new_weights` names those of the encoder that the base lacks: they are as new as the head, whose first
    weights the seed decides. `dropout` replaces every rate of the encoder; None keeps the model's own.
    """
    names = dict(enumerate(labels))
    config = AutoConfig.from_pretrained(
        base,
        id2label=names,
        label2id={label: index for index, label in names.items()},
        problem_type="single_label_classification",  # whatever the base was trained for
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


def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy and macro-F1 of logits [n x k] against labels [n]."""
    labels, predicted = prediction.label_ids, np.asarray(prediction.predictions).argmax(axis=-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def scores(actual: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """Return the scores that gates may name, of class numbers [n]."""
    named = scores_of(confusion(actual, predicted, classes))
    return {name: round(float(value), DIGITS) for name, value in named.items()}


@torch.inference_mode()
def probabilities(model: Path, rows: pl.DataFrame, batch_size: int) -> np.ndarray:
    """Return the probability of each label for each row, [rows x labels] float64, computed in float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = load_classifier(model).to(device)
    result = np.zeros((rows.height, network.config.num_labels))
    for positions, batch in batches_by_length(tokenizer, rows, batch_size, tokenizer.model_max_length):
        logits = network(**batch.to(device)).logits.double()  # [b x k]
        result[positions] = logits.softmax(dim=-1).cpu().numpy()
    return result


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
