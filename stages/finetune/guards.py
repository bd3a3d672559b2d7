"""Trainings that go wrong end with a message that names the setting to change."""

from typing import Any

import torch
from transformers import TrainerCallback

from stages.common.errors import AttuneError


class StopOnNan(TrainerCallback):
    """End a training whose loss is no number any more, naming what to change."""

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at each logged loss.

        Raises:
            AttuneError: if it is not finite.
        """
        logs = given["logs"]
        loss = logs.get("loss", logs.get("eval_loss", 0.0))
        if not torch.isfinite(torch.tensor(float(loss))):
            raise AttuneError(
                f"the loss is {loss} at step {state.global_step}: the training has diverged",
                "lower finetune.learning_rate, or set finetune.bf16: false",
            )
