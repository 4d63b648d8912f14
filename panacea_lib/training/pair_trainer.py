"""TRL's DPO trainer, taught to see m dimensions and a preference vector per row.

TRL does the batching, the schedule and the checkpoints; one override of its loss (`_compute_loss`,
private: `tests/test_contracts.py` watches it) does the rest.
"""

from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from panacea_lib.problem import Method, PreferenceSampling
from panacea_lib.trainers import keep_trained_in_float32
from panacea_lib.training.objectives import linear_dpo_loss, reward_distillation_loss
from panacea_lib.training.preferences import draw_preferences

EXTRA_COLUMNS = ("row", "label", "reward_delta")


@dataclass
class PairCollator(DataCollatorForPreference):
    """TRL's collator ([a; b] stacked), and the columns that the objectives read."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """`row` (B,), `label` (B, m) and `reward_delta` (B, m) beside TRL's tensors."""
        batch = super().torch_call(examples)
        batch["row"] = torch.tensor([example["row"] for example in examples])
        for name in ("label", "reward_delta"):
            batch[name] = torch.tensor([example[name] for example in examples])
        return batch


class PanaceaPairTrainer(DPOTrainer):
    """Trains a Panacea adapter, or a plain LoRA at a fixed λ, on pairs of responses a and b.

    The dataset holds token ids (`prompt_ids`, `chosen_ids` = a, `rejected_ids` = b), `row`,
    `label` (m, NaN unknown), `reward_delta` (m), and the reference policy's log probabilities as
    TRL names them (`ref_chosen_logps`, `ref_rejected_logps`). `fixed_preference` (m,) replaces the
    draws, and then the model is called without λ: that is how the LoRA baselines are trained.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one

    def __init__(
        self,
        *,
        method: Method,
        dimensions: list[str],
        preferences: PreferenceSampling,
        fixed_preference: list[float] | None,
        args: DPOConfig,
        train_dataset: Dataset,
        **kwargs: Any,
    ) -> None:
        label = torch.tensor(train_dataset["label"])
        coverage = (~label.isnan()).float().mean(0)
        if method == "dpo" and bool((coverage == 0).any()):
            bare = [name for name, share in zip(dimensions, coverage, strict=True) if share == 0]
            raise ValueError(f"no label on {bare}: DPO cannot learn a dimension nobody labelled")
        self._method: Method = method
        self._dimensions = dimensions
        self._preferences = preferences
        self._fixed_preference = fixed_preference
        self._coverage = coverage
        super().__init__(args=args, train_dataset=train_dataset, **kwargs)
        keep_trained_in_float32(self.model)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # tokenised already, by the functions that generation uses

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *EXTRA_COLUMNS]))

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        preference = self._preference_of(inputs["row"])
        keywords = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        if self._fixed_preference is None:  # the batch is [a; b], so λ is stacked twice
            keywords["preference"] = torch.cat([preference, preference])
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(**keywords, labels=labels, use_cache=False, fused_lm_head=True)
        logp_a, logp_b = outputs.log_probs.sum(1).chunk(2)
        log_ratio = (logp_a - inputs["ref_chosen_logps"]) - (logp_b - inputs["ref_rejected_logps"])
        margin = self.beta * log_ratio
        if self._method == "dpo":
            coverage = self._coverage.to(margin.device)
            loss, per_dimension = linear_dpo_loss(margin, inputs["label"], preference, coverage)
        else:
            loss, per_dimension = reward_distillation_loss(
                margin, inputs["reward_delta"], preference
            )
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {self.state.global_step}, rows "
                f"{inputs['row'].tolist()[:8]}...: lower the learning rate, or look at these rows"
            )
        self._record(margin.detach(), inputs, per_dimension)
        return (loss, outputs) if return_outputs else loss

    def _preference_of(self, row: Tensor) -> Tensor:
        """λ of each row of the batch, shape (B, m), float32."""
        if self._fixed_preference is not None:
            return torch.tensor(self._fixed_preference, device=row.device).expand(len(row), -1)
        drawn = draw_preferences(
            self._preferences,
            len(self._dimensions),
            self.args.seed,
            self.state.global_step,
            row.tolist(),
        )
        return torch.tensor(drawn, dtype=torch.float32, device=row.device)

    def _record(self, margin: Tensor, inputs: dict[str, Any], per_dimension: Tensor) -> None:
        """Per dimension: the loss, and the margin and accuracy towards the labelled side."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        sign = (inputs["label"] - 0.5).nan_to_num().sign()
        decided = sign.abs().sum(0)
        hits = ((margin[:, None] * sign) > 0).float().sum(0)
        towards = (margin[:, None] * sign).sum(0)
        for i, name in enumerate(self._dimensions):
            metrics[f"loss/{name}"].append(per_dimension[i].item())
            if decided[i] > 0:
                metrics[f"accuracy/{name}"].append((hits[i] / decided[i]).item())
                metrics[f"margin/{name}"].append((towards[i] / decided[i]).item())
