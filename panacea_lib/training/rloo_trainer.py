"""TRL's RLOO trainer with a preference vector per prompt: it maximises Σ λᵢ·rᵢ − β·KL(π_λ‖π_ref).

Source: Panacea, arXiv 2402.02030, its RLHF with linear scalarization, by RLOO (arXiv 2402.14740) in
place of PPO. TRL samples, charges the sequence's log π/π_ref against its reward, takes the mean of
the group's other answers for a baseline, and steps. Ours: λ wherever the policy speaks, the reward,
and draws that a resumed training repeats. `tests/test_contracts.py` watches the overrides.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from panacea_lib.adapter.model import find_preference_state
from panacea_lib.errors import InputError
from panacea_lib.generation import fitting_prompts
from panacea_lib.models.chat import Tokenizer, decode_responses
from panacea_lib.rewards.judge import Judge, open_judge
from panacea_lib.trainers import keep_trained_in_float32
from panacea_lib.training.config import TrainConfig
from panacea_lib.training.guard import FiniteGuard
from panacea_lib.training.preferences import PreferenceDraws


def build_rloo_trainer(
    config: TrainConfig,
    model: Any,
    tokenizer: Tokenizer,
    arguments: dict[str, Any],
    peft_config: Any,
    callbacks: list,
) -> "PanaceaRlooTrainer":
    """The trainer of one adapter on the prompts of `config.pairs`.

    model: the bare base model; peft_config: its adapter to be; arguments: those that all trainers
    share. Their batch_size · accumulation (· processes) is the number of answers per optimiser
    step. Raises InputError where the configuration cannot be trained.
    """
    rollouts = config.training.rollouts
    if config.rewards is None or len(config.rewards.mean) != len(config.dimensions):
        raise InputError(f"rewards: rloo needs a judge of all of {config.dimensions}")
    if config.beta <= 0:
        raise InputError(f"beta: rloo charges for leaving the reference, got {config.beta}")
    if rollouts.max_new_tokens >= config.max_length:
        raise InputError(
            f"rollouts.max_new_tokens: {rollouts.max_new_tokens} leaves no room for a prompt "
            f"within max_length {config.max_length}"
        )
    numbers = RLOOConfig(
        **arguments,
        beta=config.beta,
        num_generations=rollouts.group,
        max_completion_length=rollouts.max_new_tokens,
        # The gradient is that of the policy itself only if the answers are its own, unaltered.
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        disable_dropout=True,
        shuffle_dataset=False,  # `_prompts_in_order` has done it
    )
    return PanaceaRlooTrainer(
        judge=open_judge(config.rewards),
        dimensions=config.dimensions,
        draws=PreferenceDraws.of_training(config),
        max_length=config.max_length,
        model=model,
        args=numbers,
        train_dataset=_prompts_in_order(config, numbers),
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )


def _prompts_in_order(config: TrainConfig, arguments: RLOOConfig) -> Dataset:
    """`prompt` and `row` (its number among the unique prompts), as the steps will read them.

    Every pass over the prompts has its own order, by the seed. They stand in one long epoch,
    because a trainer resumed in its second epoch would start again with the order of its first.
    """
    import pyarrow.parquet as parquet

    table = parquet.read_table(config.pairs, columns=["prompt"])
    prompts = list(dict.fromkeys(table["prompt"].to_pylist()))
    if not prompts:
        raise InputError(f"{config.pairs}: no prompt to answer")
    generated, group = arguments.generation_batch_size, arguments.num_generations
    assert generated is not None and group is not None  # RLOOConfig has filled them in
    wanted = arguments.max_steps * (generated // group)
    passes = -(-wanted // len(prompts))
    orders = [
        np.random.default_rng((config.seed, i)).permutation(len(prompts)) for i in range(passes)
    ]
    dataset = Dataset.from_dict({"prompt": prompts, "row": range(len(prompts))})
    return dataset.select(np.concatenate(orders)[:wanted])


class PanaceaRlooTrainer(RLOOTrainer):
    """Trains a Panacea adapter, or a plain LoRA for one λ, on answers that it samples itself.

    The dataset holds `prompt` and `row`. All answers to a prompt at a step share the λ that `draws`
    gives (step, row); it holds in sampling, in both log probabilities and in the loss. The
    reference is the model without its adapter, which takes no λ. A model without a Panacea adapter
    is never told λ; its reward is weighted all the same.
    """

    model: Any  # transformers' annotation allows None; a trainer that was built has one

    def __init__(
        self,
        *,
        judge: Judge,
        dimensions: list[str],
        draws: PreferenceDraws,
        max_length: int,
        args: RLOOConfig,
        **kwargs: Any,
    ) -> None:
        self._judge = judge
        self._dimensions = dimensions
        self._draws = draws
        self._max_length = max_length
        super().__init__(reward_funcs=self.weighted_reward, args=args, **kwargs)
        self._guard = FiniteGuard(Path(str(self.args.output_dir)))
        self.add_callback(self._guard)
        keep_trained_in_float32(self.model)
        self._preference_state = find_preference_state(self.model)

    def tokens_seen(self) -> int:
        """Tokens of the answers and their prompts, over all steps, padding not counted."""
        return int(self.state.num_input_tokens_seen)

    def weighted_reward(
        self, prompts: list[str], completion_ids: list[list[int]], row: list[int], **also: Any
    ) -> list[float | None]:
        """Σ λᵢ·rᵢ of each answer, as TRL asks for it; logs the mean of every rᵢ."""
        responses = decode_responses(self.processing_class, completion_ids)
        rewards = torch.from_numpy(self._judge(prompts, responses))
        # TRL would take NaN for "not applicable" and go on.
        answers = {"prompt": prompts, "response": responses, "reward": rewards}
        self._guard.check(rewards.sum(), answers)
        for name, mean in zip(self._dimensions, rewards.mean(0).tolist(), strict=True):
            also["log_metric"](f"reward/{name}", mean)
        preference = self._draws.of(self.state.global_step, torch.tensor(row))
        return (preference * rewards).sum(1).tolist()

    def _send_telemetry(self) -> None:
        pass  # what is trained here is nobody else's business

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        longest = self.max_completion_length
        assert longest is not None
        rows = fitting_prompts(self.processing_class, prompts, longest, self._max_length)
        return rows, None, {}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        step, rank = self.state.global_step, self.accelerator.process_index
        stream = np.random.SeedSequence((self.args.seed, step, rank))
        torch.manual_seed(int(stream.generate_state(1, np.uint64)[0]))
        row = torch.tensor([example["row"] for example in inputs])
        preference = self._draws.of(step, row).to(self.accelerator.device)
        with self._under(preference):
            output = super()._generate_and_score_completions(inputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["kl"][-1] *= metrics["completions/mean_length"][-1]  # per token → per answer
        # TRL shuffles the answers and splits them for accumulation: each takes its λ with it.
        return output | {"preference": preference}

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        state = self._preference_state
        given = (model, input_ids, attention_mask, logits_to_keep)
        if batch_size is None or state is None:
            return super()._get_per_token_logps_and_entropies(*given, batch_size, **options)
        # TRL scores a generation batch in chunks, of which λ must be told its own.
        assert state.value is not None
        parts = []
        for ids, mask, preference in zip(
            *(rows.split(batch_size) for rows in (input_ids, attention_mask, state.value)),
            strict=True,
        ):
            with self._under(preference):
                chunk = (model, ids, mask, logits_to_keep)
                parts.append(super()._get_per_token_logps_and_entropies(*chunk, **options)[0])
        return torch.cat(parts), None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        with self._under(inputs["preference"]):
            loss = super()._compute_loss(model, inputs)
        self._guard.check(loss, inputs)
        return loss

    def _under(self, preference: Tensor) -> AbstractContextManager[None]:
        """A context in which the model's λ is `preference` (B, m)."""
        state = self._preference_state
        return nullcontext() if state is None else state.using(preference)
