"""AdaLoRA while it trains: ranks fall on a schedule, and updates stay orthogonal (Zhang et al. 2023, 2303.10512).

peft leaves both to the caller: the schedule needs the number of steps of the training, and peft adds the orthogonality
to the model's own loss, which is not the one trained here.
"""

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common.errors import AttuneError
from stages.common.params.strategies import AdaloraOptions
from stages.finetune.objective import Objective

NAME = "default"  # peft's, of the only adapter
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of each weight's importance, in peft's rank allocator
PATTERN = "rank_pattern"


class RankBudget(TrainerCallback):
    """Let the ranks fall after each step of the optimiser."""

    def __init__(self, options: AdaloraOptions) -> None:
        self._options = options

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Give peft the number of steps.

        Raises:
            AttuneError: if they are too few for ranks to fall.
        """
        steps = state.max_steps
        first, last = int(self._options.tinit_ratio * steps), int(self._options.tfinal_ratio * steps)
        if steps - last < 2:  # the importance of a rank is known after one step, and used in the next
            raise AttuneError(
                f"finetune.strategy is adalora, but a training of {steps} step{'s' * (steps != 1)} leaves no time for "
                "ranks to fall",
                "raise finetune.num_train_epochs, lower finetune.adalora.tfinal_ratio, or set finetune.strategy: lora",
            )
        config = given["model"].peft_config[NAME]
        config.total_step, config.tinit, config.tfinal = steps, first, last

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Weigh the ranks by the gradients that are still there, and mask those that are over the budget."""
        given["model"].base_model.update_and_allocate(state.global_step + 1)  # the step that is being taken


def with_orthogonality(objective: Objective, model: Any) -> Objective:
    """Return the loss with what keeps the two sides of each update orthogonal; not in validation.

    Each pass of an accumulated step brings its share of it, so that the step's gradient is that of the big batch.
    """

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        data = objective(outputs, labels, num_items_in_batch=num_items_in_batch)
        if not torch.is_grad_enabled():
            return data
        share = 1.0 if num_items_in_batch is None else labels.numel() / num_items_in_batch
        return data + share * model.peft_config[NAME].orth_reg_weight * orthogonality(model).to(data.device)

    return loss


def orthogonality(model: nn.Module) -> torch.Tensor:
    """Return the mean Frobenius norm of P'P - 1 and QQ' - 1 over all updates (eq. 4; in float32)."""
    distances = []
    for name, weights in model.named_parameters():
        if f".lora_A.{NAME}" in name or f".lora_B.{NAME}" in name:
            with torch.autocast(weights.device.type, enabled=False):
                square = weights @ weights.T if ".lora_A." in name else weights.T @ weights  # [r x r]
                distances.append(torch.linalg.matrix_norm(square - torch.eye(len(square), device=square.device)))
    return torch.stack(distances).mean()


def allocator_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the rank allocator's state as `kind/weight` → tensor; empty for other adapters."""
    if not hasattr(model.base_model, "rankallocator"):
        return {}
    kinds = {kind: getattr(model.base_model.rankallocator, kind) for kind in AVERAGES}
    kinds[PATTERN] = model.peft_config[NAME].rank_pattern or {}
    return {f"{kind}/{name}": torch.as_tensor(value) for kind, of in kinds.items() for name, value in of.items()}


def restore_allocator(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Give a rank allocator what `allocator_state` returned; without any, nothing happens."""
    if hasattr(model.base_model, "rankallocator"):
        for kind in AVERAGES:
            own = {name.removeprefix(f"{kind}/"): value for name, value in state.items() if name.startswith(f"{kind}/")}
            setattr(model.base_model.rankallocator, kind, {name: value.to(model.device) for name, value in own.items()})
        pattern = {name.partition("/")[2]: mask.tolist() for name, mask in state.items() if name.startswith(PATTERN)}
        model.peft_config[NAME].rank_pattern = pattern or None
