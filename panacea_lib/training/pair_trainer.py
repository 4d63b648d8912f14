"""TRL's DPO trainer, taught to see m dimensions and a preference vector per row.

TRL does the batching, the schedule and the checkpoints; one override of its loss (`_compute_loss`,
private: `tests/test_contracts.py` watches it) does the rest: DPO and reward distillation, on a
Panacea adapter, on a plain LoRA for one λ, and on a LoRA that is told λ in words.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from panacea_lib.models.chat import Tokenizer
from panacea_lib.prompt_preference import overwritten
from panacea_lib.trainers import keep_trained_in_float32
from panacea_lib.training.config import TrainConfig
from panacea_lib.training.guard import FiniteGuard
from panacea_lib.training.objectives import (
    by_dimension,
    conflict,
    distillation_losses,
    distillation_slopes,
    dpo_losses,
    dpo_slopes,
    tail_divergence,
)
from panacea_lib.training.pair_data import order_of_passes, pair_dataset, pair_tokens
from panacea_lib.training.preferences import PreferenceDraws
from panacea_lib.training.scalarization import scalarize

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
    """Trains one adapter on pairs of responses a and b, by the method of `config`, in the order of
    `order_of_passes`.

    The dataset is that of `pair_dataset`: token ids (`prompt_ids`, `chosen_ids` = a,
    `rejected_ids` = b), `row`, `label` (m, NaN unknown), `reward_delta` (m), and the reference
    policy's log probabilities as TRL names them. Only a Panacea adapter is called with λ.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one

    def __init__(
        self, *, config: TrainConfig, args: DPOConfig, train_dataset: Dataset, **kwargs: Any
    ) -> None:
        self._config = config
        self._draws = PreferenceDraws.of_training(config)
        self._coverage = (~torch.tensor(train_dataset["label"]).isnan()).float().mean(0)
        count = args.max_steps * args.gradient_accumulation_steps * args.world_size
        count *= args.per_device_train_batch_size
        order = order_of_passes(len(train_dataset), count, args.seed)
        self._tokens = int(pair_tokens(train_dataset)[order].sum())
        super().__init__(args=args, train_dataset=train_dataset.select(order), **kwargs)
        self._guard = FiniteGuard(Path(str(self.args.output_dir)))
        self.add_callback(self._guard)
        keep_trained_in_float32(self.model)

    def tokens_seen(self) -> int:
        """Tokens of both responses and their prompts, over all steps, padding not counted."""
        return round(self._tokens * self.state.global_step / self.state.max_steps)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # tokenised already, by the functions that generation uses

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *EXTRA_COLUMNS]))

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        preference = self._draws.of(self.state.global_step, inputs["row"])
        outputs, logps, tail = self._forward(model, inputs, preference)
        logp_a, logp_b = logps.chunk(2)
        gain_a, gain_b = logp_a - inputs["ref_chosen_logps"], logp_b - inputs["ref_rejected_logps"]
        margin = self.beta * (gain_a - gain_b)
        loss, losses, slopes = self._objective(margin, inputs, preference)
        loss = loss + self._config.tail_penalty * tail
        self._guard.check(loss, inputs)
        # What is logged is of the rows of all processes, as one process would see them.
        own = (margin.detach(), losses.detach(), slopes, preference, inputs["label"])
        margin, losses, slopes, preference, label = self.accelerator.gather(own)
        self._record_conflict(slopes)
        self._record(margin, label, self._by_dimension(losses, preference))
        # KL(π_ref‖π) in expectation, where it was the reference policy that gave the answers.
        self._log_mean("kl", -torch.cat([gain_a, gain_b]).mean())
        return (loss, outputs) if return_outputs else loss

    def _forward(
        self, model: Any, inputs: dict[str, Any], preference: Tensor
    ) -> tuple[Any, Tensor, Tensor]:
        """The outputs, log π of every response (2B,), and their mean `tail_divergence` or 0."""
        ids, attention = inputs["input_ids"], {"attention_mask": inputs["attention_mask"]}
        asked = {**self._under(preference, ids), **attention, "use_cache": False}
        if not self._config.tail_penalty:
            labels = ids.masked_fill(inputs["completion_mask"] == 0, -100)
            outputs = model(**asked, labels=labels, fused_lm_head=True)
            return outputs, outputs.log_probs.sum(1), outputs.log_probs.new_zeros(())
        outputs = model(**asked)
        with torch.no_grad(), self.model.disable_adapter():
            reference = self.model(input_ids=ids, **attention, use_cache=False)
        said = inputs["completion_mask"][:, 1:]
        logprobs, expected = (
            o.logits[:, :-1].float().log_softmax(-1) for o in (outputs, reference)
        )
        logps = (logprobs.gather(-1, ids[:, 1:, None])[..., 0] * said).sum(1)
        tail = tail_divergence(logprobs, expected, said).mean()
        self._log_mean("tail", tail)
        return outputs, logps, tail

    def _under(self, preference: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        """How the model is asked for λ (B, m); the batch is [a; b], so λ is stacked twice."""
        both = torch.cat([preference, preference])
        if self._config.adapter == "panacea":
            return {"input_ids": input_ids, "preference": both}
        if self._config.adapter == "lora":
            return {"input_ids": input_ids}
        tokenizer: Any = self.processing_class
        return {"input_ids": overwritten(input_ids, tokenizer, both)}

    def _objective(
        self, margin: Tensor, inputs: dict[str, Any], preference: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, those that it is made of, (B, m) or (B,), and what each dimension alone asks of
        the margins (B, m)."""
        numbers = self._config.training
        if self._config.method == "dpo":
            label = inputs["label"]
            losses = dpo_losses(margin, label) / self._coverage.to(margin.device)
            slopes = dpo_slopes(margin.detach(), label)
            return scalarize(losses, preference, numbers.scalarization), losses, slopes
        delta, kind = inputs["reward_delta"], numbers.distillation_loss
        losses = distillation_losses(margin, delta, preference, kind)
        slopes = distillation_slopes(margin.detach(), delta, kind)
        return losses.mean(), losses, slopes

    def _by_dimension(self, losses: Tensor, preference: Tensor) -> Tensor:
        """The m mean losses, from those of `_objective`."""
        return losses.mean(0) if losses.dim() == 2 else by_dimension(losses, preference)

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _log_mean(self, name: str, value: Tensor) -> None:
        """The mean over all processes, which have rows in equal number."""
        everywhere: Any = self.accelerator.reduce(value.detach(), "mean")
        self._log(name, everywhere.item())

    def _record(self, margin: Tensor, label: Tensor, per_dimension: Tensor) -> None:
        """Per dimension: the loss, and the margin and accuracy towards the labelled side."""
        sign = (label - 0.5).nan_to_num().sign()
        decided = sign.abs().sum(0)
        hits = ((margin[:, None] * sign) > 0).float().sum(0)
        towards = (margin[:, None] * sign).sum(0)
        for i, name in enumerate(self._config.dimensions):
            self._log(f"loss/{name}", per_dimension[i].item())
            if decided[i] > 0:
                self._log(f"accuracy/{name}", (hits[i] / decided[i]).item())
                self._log(f"margin/{name}", (towards[i] / decided[i]).item())

    def _record_conflict(self, slopes: Tensor) -> None:
        cosines = conflict(slopes).tolist()
        names = self._config.dimensions
        for i, name in enumerate(names):
            for j in range(i):
                self._log(f"gradient_cosine/{names[j]}/{name}", cosines[i][j])


def build_pair_trainer(
    config: TrainConfig,
    model: Any,
    tokenizer: Tokenizer,
    arguments: dict[str, Any],
    peft_config: Any,
    callbacks: list[Any],
) -> PanaceaPairTrainer:
    """A trainer of `config` on the bare base `model`; `arguments` go to TRL's configuration.

    InputError where the pairs cannot be trained on (`pair_dataset`).
    """
    return PanaceaPairTrainer(
        config=config,
        model=model,
        args=DPOConfig(beta=config.beta, train_sampling_strategy="sequential", **arguments),
        train_dataset=pair_dataset(config, model, tokenizer),
        processing_class=tokenizer,
        data_collator=PairCollator(tokenizer.pad_token_id, max_length=config.max_length),
        peft_config=peft_config,
        callbacks=callbacks,
    )
