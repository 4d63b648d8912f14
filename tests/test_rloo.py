"""Online training: whose λ holds where, what is maximised, and that it may die."""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from peft import LoraConfig
from small_models import BETA, DIMENSIONS, MODEL, small_base, texts_of
from torch import Tensor

from panacea_lib.adapter import PanaceaConfig
from panacea_lib.generation import generate_rows, sequence_logprobs
from panacea_lib.models.base import load_base_model
from panacea_lib.models.chat import decode_responses, encode_prompts
from panacea_lib.problem_training import PolicyTraining, PreferenceSampling, Rollouts
from panacea_lib.rewards.judge import WorldRewards, open_judge
from panacea_lib.trainers import last_complete_checkpoint, quiet, trainer_device
from panacea_lib.training.config import TrainConfig
from panacea_lib.training.preferences import draw_preferences
from panacea_lib.training.rloo_trainer import PanaceaRlooTrainer, build_rloo_trainer
from panacea_lib.world.annotators import gold_raw_texts

WORLD = WorldRewards(dimensions=DIMENSIONS, mean=[1.0, 0.5], scale=[2.0, 0.5])
PLAIN = WorldRewards(dimensions=DIMENSIONS, mean=[0.0, 0.0], scale=[1.0, 1.0])
PROMPTS = texts_of("train", 5)  # few, so that a short training sees each of them again


def config_of(folder: Path, prompts: list[str] = PROMPTS, **changes: Any) -> TrainConfig:
    """A training of seconds; `changes` go to `training`, or to the whole where they fit."""
    pairs = folder / "prompts.parquet"
    parquet.write_table(pa.table({"prompt": pa.array(prompts, pa.string())}), pairs)
    numbers = {"steps": 6, "batch_size": 8, "learning_rate": 3e-2, "rank": 4}
    numbers |= {"method": "rloo", "rollouts": Rollouts(group=4, max_new_tokens=24)}
    own = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.model_fields}
    return TrainConfig(
        **{
            "base_model": str(small_base()),
            "dimensions": DIMENSIONS,
            "beta": BETA,
            "max_length": MODEL.max_length,
            "training": PolicyTraining(**{**numbers, **changes}),
            "pairs": str(pairs),
            "rewards": WORLD,
            **own,
        }
    )


def trainer_of(config: TrainConfig, folder: Path) -> PanaceaRlooTrainer:
    """As `train` builds it, with a checkpoint at every third step and every step logged."""
    model, tokenizer = load_base_model(Path(config.base_model), config.quantization)
    numbers = config.training
    arguments = {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": numbers.steps,
        "per_device_train_batch_size": numbers.batch_size,
        "gradient_accumulation_steps": numbers.accumulation,
        "learning_rate": numbers.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 1,
        "seed": config.seed,
        "save_steps": 3,
        "logging_steps": 1,
        **trainer_device(),
        "gradient_checkpointing": numbers.gradient_checkpointing,
    }
    if config.adapter == "panacea":
        adapter = PanaceaConfig(dimensions=DIMENSIONS, r=numbers.rank, alpha=numbers.alpha)
    else:
        adapter = LoraConfig(task_type="CAUSAL_LM", r=6, lora_alpha=6, target_modules="all-linear")
    trainer = build_rloo_trainer(config, model, tokenizer, arguments, adapter, [])
    quiet(trainer)
    return trainer


def trained(config: TrainConfig, folder: Path) -> PanaceaRlooTrainer:
    trainer = trainer_of(config, folder)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder / "checkpoints"))
    trainer.model.save_pretrained(folder / "adapter")
    return trainer


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def weights(trainer: PanaceaRlooTrainer) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


def logged(trainer: PanaceaRlooTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def unsettle(trainer: PanaceaRlooTrainer) -> None:
    """Move the adapter off the identity, or the KL and half of the gradients would be zero."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in weights(trainer).items():
            if name.endswith(("sigma", "scale")):
                parameter.copy_(10 * torch.randn_like(parameter))


# ---- λ


class Witness:
    """Sees every forward of the model: its rows, the λ it ran under, whether the adapter was on."""

    def __init__(self, trainer: PanaceaRlooTrainer) -> None:
        self.trainer = trainer
        tokenizer: Any = trainer.processing_class
        encoded = encode_prompts(tokenizer, PROMPTS)
        self.row_of = {tuple(ids): row for row, ids in enumerate(encoded)}
        self.turn, self.pad = encoded[0][-1], tokenizer.pad_token_id
        self.kinds: list[tuple[bool, bool, int]] = []  # (adapter on, gradients, rows)
        self.asked: list[int] = []
        base = trainer.model.get_base_model()
        base.model.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        if ids.shape[1] > 1:  # a later token of generation: its rows are those before
            self.asked = [self.row(row) for row in ids.tolist()]
        trainer, m = self.trainer, len(DIMENSIONS)
        enabled = not module.layers[0].mlp.up_proj.disable_adapters
        self.kinds.append((enabled, torch.is_grad_enabled(), len(ids)))
        step = trainer.state.global_step
        expected = draw_preferences(PreferenceSampling(), m, 0, step, self.asked)
        if enabled:
            assert trainer._preference_state is not None
            held = trainer._preference_state.value
            assert held is not None and held.numpy() == pytest.approx(expected, abs=1e-6)

    def row(self, ids: list[int]) -> int:
        start = next(i for i, token in enumerate(ids) if token != self.pad)
        return self.row_of[tuple(ids[start : ids.index(self.turn) + 1])]


def test_every_forward_of_the_policy_is_under_the_draw_of_its_prompt_and_step(tmp_path):
    """Sampling, both log probabilities and the loss; with accumulation TRL shuffles the answers of
    a step and splits them, and scores them in chunks."""
    config = config_of(tmp_path, steps=2, batch_size=4, accumulation=2)
    trainer = trainer_of(config, tmp_path)
    witness = Witness(trainer)
    trainer.train()
    losses = [kind for kind in witness.kinds if kind[1]]
    assert losses == [(True, True, 4)] * 4, "2 steps of 2 micro-batches"
    references = [kind for kind in witness.kinds if not kind[0]]
    assert references == [(False, False, 4)] * 4
    sampling = [kind for kind in witness.kinds if kind == (True, False, 8)]
    assert len(sampling) > 10
    assert len(witness.kinds) == 4 + 4 + 4 + len(sampling)


def test_a_step_asks_whole_groups_and_each_pass_every_prompt(tmp_path):
    trainer = trainer_of(config_of(tmp_path, steps=10), tmp_path)
    batches = [[example["row"] for example in batch] for batch in trainer.get_train_dataloader()]
    assert all(len(batch) == 8 for batch in batches) and len(batches) == 10
    groups = [batch[i : i + 4] for batch in batches for i in (0, 4)]
    assert all(len(set(group)) == 1 for group in groups)
    order = [group[0] for group in groups]
    passes = [order[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 1


# ---- what is maximised


def test_advantages_are_those_of_the_weighted_reward_less_beta_times_the_log_ratio(tmp_path):
    """Once more by hand, with the functions that evaluation uses: rewards of the texts, log
    probabilities of policy and reference, the mean of the group's others."""
    trainer = trainer_of(config_of(tmp_path, batch_size=16, steps=2), tmp_path)
    unsettle(trainer)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    output = trainer._generate_and_score_completions(batch)
    tokenizer: Any = trainer.processing_class
    prompts = [example["prompt"] for example in batch]
    asked = encode_prompts(tokenizer, prompts)
    for ids, mask, expected in zip(output["prompt_ids"], output["prompt_mask"], asked, strict=True):
        assert ids[mask.bool()].tolist() == expected
    answers = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(output["completion_ids"], output["completion_mask"], strict=True)
    ]
    assert all(row[-1] == tokenizer.eos_token_id or len(row) == 24 for row in answers)
    preference = output["preference"]
    logps = sequence_logprobs(trainer.model, tokenizer, asked, answers, preference=preference)
    with trainer.model.disable_adapter():
        reference = sequence_logprobs(trainer.model, tokenizer, asked, answers)
    assert output["old_logps"].tolist() == pytest.approx(logps.tolist(), abs=1e-4)
    raw = gold_raw_texts(prompts, decode_responses(tokenizer, answers), DIMENSIONS)
    rewards = (raw - np.array([1.0, 0.5])) / np.array([2.0, 0.5])
    weighted = (rewards * preference.numpy()).sum(1)
    value = (weighted - BETA * (logps - reference).numpy()).reshape(4, 4)
    others = (value.sum(1, keepdims=True) - value) / 3
    assert output["advantages"].tolist() == pytest.approx((value - others).ravel(), abs=1e-4)
    metrics = trainer._metrics["train"]
    kl = (logps - reference).mean().item()
    assert abs(kl) > 0.01 and metrics["kl"] == pytest.approx([kl], rel=1e-3)
    for i, name in enumerate(DIMENSIONS):
        assert metrics[f"reward/{name}"] == pytest.approx([rewards[:, i].mean()], abs=1e-5)


def test_the_gradient_is_that_of_the_value_where_it_can_be_enumerated(tmp_path):
    """Answers of one token: V = Σ_y π(y)·(λ·r(y) − β·log π/π_ref) is known, and so is its gradient.
    RLOO's, of 512 answers to each of 4 prompts, is that one; not that without KL, nor of other λ.
    """
    rollouts = Rollouts(group=512, max_new_tokens=1)
    config = config_of(tmp_path, batch_size=2048, steps=1, rollouts=rollouts, beta=10.0)
    trainer = trainer_of(config, tmp_path)
    unsettle(trainer)
    model, tokenizer = trainer.model.train(), trainer.processing_class
    vocabulary = model.config.vocab_size
    texts = decode_responses(tokenizer, [[token] for token in range(vocabulary)])
    drawn = np.random.default_rng(0).normal(size=(vocabulary, 2))
    reward_of = dict(zip(texts, drawn, strict=True))  # specials and unused ids: all the same text
    trainer._judge = lambda prompts, responses: np.stack([reward_of[text] for text in responses])
    batch = next(iter(trainer.get_train_dataloader()))
    output = trainer._generate_and_score_completions(batch)
    trainer._compute_loss(model, output).backward()
    found = gradient(trainer)
    asked = [example["prompt"] for example in batch][::512]
    preference = output["preference"][::512]
    with torch.no_grad(), model.disable_adapter():
        reference = first_token_logps(model, tokenizer, asked)
    table = torch.tensor(np.stack([reward_of[text] for text in texts])).float()
    exact = []
    for beta, weight in ((10.0, preference), (0.0, preference), (10.0, preference.flip(1))):
        model.zero_grad()
        logps = first_token_logps(model, tokenizer, asked, preference)
        gain = weight @ table.T - beta * (logps - reference)
        (-(logps.exp() * gain).sum(1).mean()).backward()
        exact.append(gradient(trainer))
    error = [((found - other).norm() / other.norm()).item() for other in exact]
    assert error[0] < 0.1 and min(error[1:]) > 0.2, error


def first_token_logps(
    model: Any, tokenizer: Any, prompts: list[str], preference: Tensor | None = None
) -> Tensor:
    """log π of every first token after each prompt, prompt by prompt: (prompts, vocabulary)."""
    rows = []
    for i, ids in enumerate(encode_prompts(tokenizer, prompts)):
        under = {} if preference is None else {"preference": preference[i]}
        rows.append(model(input_ids=torch.tensor([ids]), **under).logits[0, -1])
    return torch.stack(rows).log_softmax(-1)


def gradient(trainer: PanaceaRlooTrainer) -> Tensor:
    parts = [p.grad.ravel() for p in trainer.model.parameters() if p.grad is not None]
    return torch.cat(parts).clone()


@pytest.fixture(scope="module")
def vertices(tmp_path_factory) -> PanaceaRlooTrainer:
    """Forty steps towards the corners."""
    folder = tmp_path_factory.mktemp("vertices")
    corners = PreferenceSampling(vertex_probability=1.0)
    numbers = {"steps": 40, "batch_size": 64, "preferences": corners}
    prompts = texts_of("train", 40)
    own = {"rollouts": Rollouts(), "beta": 0.2, "rewards": PLAIN}
    return trained(config_of(folder, prompts, **own, **numbers), folder)


def test_a_training_starts_at_the_reference_and_gains_what_each_preference_asks(vertices):
    kl = logged(vertices, "kl")
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 0.05
    assert len(logged(vertices, "reward/helpfulness")) == 40
    tokenizer: Any = vertices.processing_class
    asked = texts_of("train", 40) * 4
    model = vertices.model.eval()

    def means(**arguments: Any) -> np.ndarray:
        rows = generate_rows(model, tokenizer, asked, 40, seed=0, **arguments)
        answers = decode_responses(tokenizer, rows)
        return open_judge(PLAIN)(asked, answers).mean(0)

    with model.disable_adapter():
        before = means()
    for i in range(2):
        after = means(preference=torch.eye(2)[i])
        assert after[i] > before[i] + 0.5, (i, before, after)


# ---- the same again, and after a death


def test_the_same_seed_gives_the_same_bytes_and_a_resumed_training_too(tmp_path):
    """The second half is in the third pass over the prompts: TRL's own order would begin anew."""
    config = config_of(tmp_path)
    whole, again = tmp_path / "whole", tmp_path / "again"
    first = trained(config, whole)
    # What a process leaves that died after step 3; no draw may come from a generator's state.
    left = again / "checkpoints" / "checkpoint-3"
    shutil.copytree(whole / "checkpoints" / "checkpoint-3", left)
    (left / "rng_state.pth").unlink()
    second = trained(config, again)
    assert adapter_bytes(again) == adapter_bytes(whole)
    for name in ("loss", "kl", "reward/helpfulness"):
        assert logged(first, name) == logged(second, name)
    once_more, other = tmp_path / "once_more", tmp_path / "other"
    trained(config, once_more)
    assert adapter_bytes(once_more) == adapter_bytes(whole)
    trained(config.model_copy(update={"seed": 1}), other)
    assert adapter_bytes(other) != adapter_bytes(whole)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient_checkpointing"])
def test_one_batch_of_16_is_four_of_4(tmp_path, checkpointing):
    numbers = {"steps": 2, "learning_rate": 1e-2}
    (tmp_path / "whole").mkdir()
    whole = trained(config_of(tmp_path, batch_size=16, **numbers), tmp_path / "whole")
    numbers["gradient_checkpointing"] = checkpointing
    parts = config_of(tmp_path, batch_size=4, accumulation=4, **numbers)
    split = trained(parts, tmp_path / "split")
    one, two = weights(whole), weights(split)
    assert max(tensor.abs().max().item() for name, tensor in one.items() if "sigma" in name) > 5e-3
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-4), name


# ---- other models


def test_a_lora_is_trained_for_its_one_preference(tmp_path):
    config = config_of(tmp_path, adapter="lora", fixed_preference=[0.25, 0.75], steps=2)
    trainer = trained(config, tmp_path)
    mean = logged(trainer, "rewards/weighted_reward/mean")
    each = np.array([logged(trainer, f"reward/{name}") for name in DIMENSIONS])
    assert mean == pytest.approx([0.25, 0.75] @ each, abs=1e-5)
    assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-6)
    assert any(bool(p.any()) for name, p in weights(trainer).items() if "lora_B" in name)


def test_a_quantised_base_takes_a_step_and_the_adapter_stays_in_float32(tmp_path):
    trainer = trained(config_of(tmp_path, quantization="nf4", steps=2, batch_size=4), tmp_path)
    found = weights(trainer)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    assert any(bool(tensor.any()) for name, tensor in found.items() if name.endswith("sigma"))
    assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-4)


# ---- what is refused


def test_what_cannot_be_trained_is_refused_in_words(tmp_path):
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no prompt", {"prompts": []}),
        ("beta", {"beta": 0.0}),
        ("max_new_tokens", {"rollouts": Rollouts(max_new_tokens=MODEL.max_length)}),
        ("rewards", {"rewards": WorldRewards(dimensions=["helpfulness"], mean=[0], scale=[1])}),
    ]
    for words, changes in cases:
        with pytest.raises(ValueError, match=words):
            trainer_of(config_of(tmp_path, batch_size=8, **changes), tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_stops_the_training(tmp_path, bad):
    """TRL would take NaN for a reward that does not apply, and infinity for a huge one."""
    trainer = trainer_of(config_of(tmp_path), tmp_path)
    judge = trainer._judge

    def broken(prompts: list[str], responses: list[str]) -> np.ndarray:
        rewards = judge(prompts, responses)
        rewards[2, 1] = bad
        return rewards

    trainer._judge = broken
    with pytest.raises(FloatingPointError):
        trainer.train()


def test_prompts_too_long_lose_their_beginning(tmp_path):
    trainer = trainer_of(config_of(tmp_path, max_length=28), tmp_path)
    rows, _, _ = trainer._tokenize_prompts(PROMPTS)
    assert rows == [ids[-4:] for ids in encode_prompts(trainer.processing_class, PROMPTS)]


def test_nobody_is_told_and_nothing_else_is_loaded(tmp_path, monkeypatch):
    from trl.trainer import base_trainer

    sent: list[Any] = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda **told: sent.append(told))
    trainer_of(config_of(tmp_path), tmp_path)
    assert sent == []
    assert not {"vllm", "weave", "wandb"} & set(sys.modules)
