"""AdaLoRA while it trains: ranks fall on a schedule, and updates stay orthogonal (Zhang et al. 2023, 2303.10512).

peft leaves both to the caller: the schedule needs the number of steps of the training, and peft adds the orthogonality
to the model's own loss, which is not the one trained here.
"""

from typing import Any

import torch
from transformers import TrainerCallback

from stages.common.errors import AttuneError
from stages.common.params.finetune import AdaloraOptions
from stages.finetune.batches import IGNORED
from stages.finetune.loss import Objective

NAME = "default"  # peft's, of the only adapter
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of each weight's importance, in peft's rank allocator


class RankBudget(TrainerCallback):
    """Let the ranks fall after each step of the optimiser."""

    def __init__(self, options: AdaloraOptions) -> None:
        self._options = options

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Give peft the number of steps, unless they are too few for ranks to fall."""
        steps, config = state.max_steps, given["model"].peft_config[NAME]
        config.total_step, config.tinit = steps, int(self._options.tinit_ratio * steps)
        config.tfinal = int(self._options.tfinal_ratio * steps)
        if steps - config.tfinal < 2:  # the importance of a rank is known after one step, and used in the next
            raise AttuneError(
                f"finetune.strategy is adalora, but ranks cannot fall in a training of {steps} step{'s' * (steps > 1)}",
                "raise finetune.num_train_epochs, lower finetune.adalora.tfinal_ratio, or set finetune.strategy: lora",
            )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Weigh the ranks by the gradients that are still there, and mask those that are over the budget."""
        given["model"].base_model.update_and_allocate(state.global_step + 1)  # the step that is being taken


def with_orthogonality(objective: Objective, model: Any) -> Objective:
    """Return the loss with what keeps both sides of each update orthogonal; each pass of a step brings its share."""

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        data = objective(outputs, labels, num_items_in_batch=num_items_in_batch)
        if not torch.is_grad_enabled():
            return data
        share = 1.0 if num_items_in_batch is None else (labels != IGNORED).sum() / num_items_in_batch
        return data + share * model.peft_config[NAME].orth_reg_weight * orthogonality(model).to(data.device)

    return loss


def orthogonality(model: torch.nn.Module) -> torch.Tensor:
    """Return the mean Frobenius norm of P'P - 1 and QQ' - 1 over all updates (eq. 4; in float32)."""
    distances = []
    for name, weights in model.named_parameters():
        if f".lora_A.{NAME}" in name or f".lora_B.{NAME}" in name:
            with torch.autocast(weights.device.type, enabled=False):
                square = weights @ weights.T if ".lora_A." in name else weights.T @ weights  # [r x r]
                distances.append(torch.linalg.matrix_norm(square - torch.eye(len(square), device=square.device)))
    return torch.stack(distances).mean()


def rank_state(model: Any) -> dict[str, Any]:
    """Return what peft's rank allocator remembers from step to step; nothing for other models than AdaLoRA's."""
    if not hasattr(model.base_model, "rankallocator"):
        return {}
    averages = {kind: getattr(model.base_model.rankallocator, kind) for kind in AVERAGES}
    return {"averages": averages, "pattern": model.peft_config[NAME].rank_pattern}


def restore_ranks(model: Any, state: dict[str, Any]) -> None:
    """Restore what `rank_state` returned."""
    if state:
        vars(model.base_model.rankallocator).update(state["averages"])
        model.peft_config[NAME].rank_pattern = state["pattern"]
