"""TRL's reward trainer, taught that annotators need not agree, and that dimensions share pairs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

from panacea_lib.trainers import curve_rows, keep_trained_in_float32

_METRIC = "accuracy"


@dataclass
class SoftLabelCollator(DataCollatorForPreference):
    """TRL's collator ([a; b] stacked, `margin`), and the column `label` = P(a preferred over b),
    (B, m); NaN is unknown."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """`label` beside TRL's tensors."""
        batch = super().torch_call(examples)
        labels = [example["label"] for example in examples]
        batch["label"] = torch.tensor(labels, dtype=torch.float)
        return batch


class SoftLabelRewardTrainer(RewardTrainer):
    """Bradley-Terry with soft labels p and margins g on m dimensions, Δ = reward(a) − reward(b):

        −p·log σ(Δ − g) − (1−p)·log σ(−Δ + g)

    For p = 1 this is TRL's own loss with its margin (Llama 2, arXiv 2307.09288, eq. 2). Unknown
    labels count nothing, and what a dimension has is divided by its coverage: all dimensions weigh
    alike, however sparse their labels. The loss is their mean.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one

    def __init__(self, dimensions: list[str], coverage: np.ndarray, **kwargs: Any) -> None:
        """coverage: the share of the training rows with a label, (m,)."""
        super().__init__(**kwargs)
        self.dimensions = dimensions
        self.coverage = torch.tensor(coverage, dtype=torch.float)
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
        """The loss of the batch, in nats."""
        label, margin = inputs.pop("label"), inputs.pop("margin")
        outputs = model(**inputs, use_cache=False)
        reward_a, reward_b = outputs.logits.chunk(2)
        delta = reward_a - reward_b
        known = label.isfinite()
        p, ahead = label.nan_to_num(0.5), delta - margin
        rows = -(p * F.logsigmoid(ahead) + (1 - p) * F.logsigmoid(-ahead))
        weight = known / self.coverage.to(rows.device)
        loss = (rows * weight).mean()
        self._note_accuracy(delta, label)
        return (loss, outputs) if return_outputs else loss

    def _note_accuracy(self, delta: torch.Tensor, label: torch.Tensor) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        decided = label.isfinite() & (label != 0.5)
        hits = (delta > 0) == (label > 0.5)
        for i, name in enumerate(self.dimensions):
            if bool(decided[:, i].any()):
                share = hits[:, i][decided[:, i]].float().mean().item()
                metrics[_metric(name)].append(share)

    def curves(self) -> list[dict[str, Any]]:
        """Loss and each dimension's accuracy by step, as rows of a `TrainResult`."""
        history = self.state.log_history
        rows = curve_rows(history, "loss")
        for name in self.dimensions:
            for row in curve_rows(history, _metric(name)):
                rows.append(row | {"dimension": name, "metric": _METRIC})
        return rows


def _metric(dimension: str) -> str:
    """The name of a dimension's accuracy in transformers' log."""
    return f"{_METRIC}/{dimension}" if dimension else _METRIC
