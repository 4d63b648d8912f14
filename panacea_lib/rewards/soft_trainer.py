"""TRL's reward trainer, taught that several annotators need not agree."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

from panacea_lib.trainers import keep_trained_in_float32


@dataclass
class SoftLabelCollator(DataCollatorForPreference):
    """TRL's collator ([a; b] stacked), and the column `label` = P(a preferred over b), (B,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """`label` beside TRL's tensors."""
        batch = super().torch_call(examples)
        batch["label"] = torch.tensor([example["label"] for example in examples])
        return batch


class SoftLabelRewardTrainer(RewardTrainer):
    """Bradley-Terry with soft labels: −p·log σ(Δ) − (1−p)·log σ(−Δ), Δ = reward(a) − reward(b).

    For p = 1 this is TRL's own loss.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        keep_trained_in_float32(self.model)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, "label"]))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss of the batch, in nats."""
        label = inputs.pop("label")
        outputs = model(**inputs, use_cache=False)
        reward_a, reward_b = outputs.logits.squeeze(-1).chunk(2)
        margin = reward_a - reward_b
        loss = -(label * F.logsigmoid(margin) + (1 - label) * F.logsigmoid(-margin)).mean()
        decided = label != 0.5
        if bool(decided.any()):
            hits = ((margin > 0) == (label > 0.5))[decided].float().mean().item()
            self._metrics["train" if self.model.training else "eval"]["accuracy"].append(hits)
        return (loss, outputs) if return_outputs else loss
