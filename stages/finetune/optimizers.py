"""The optimiser, and which weights get which learning rate and decay."""

import torch
from transformers.trainer_pt_utils import get_parameter_names

from stages.common.params import FinetuneParams

NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def build_optimizer(model: torch.nn.Module, params: FinetuneParams) -> torch.optim.Optimizer:
    """Return the optimiser over the weights that train; biases and norms do not decay."""
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], NOT_DECAYED))
    training = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    groups = [
        {"params": [weights for name, weights in training if name in decayed], "weight_decay": params.weight_decay},
        {"params": [weights for name, weights in training if name not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.learning_rate, fused=True)
