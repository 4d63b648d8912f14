"""Reward models: the soft-label loss, what is trained and saved, how it is scored and judged."""

import math
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_models import MODEL, small_base, small_pairs, texts_of

from panacea_lib.models.chat import encode_prompts, encode_responses
from panacea_lib.problem_training import RewardTraining
from panacea_lib.rewards import score
from panacea_lib.rewards.quality import reward_model_metrics
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.rewards.score import score_responses
from panacea_lib.rewards.soft_trainer import SoftLabelRewardTrainer
from panacea_lib.rewards.train import LabelledPair, load_classifier, train_reward_model, truncate
from panacea_lib.world.grammar import all_answers, all_prompts, render

CONFIG = RewardTraining(steps=30, batch_size=16, learning_rate=1e-2, rank=4)


def labelled(count: int = 64, soft: float = 1.0) -> list[LabelledPair]:
    """Pairs with gold harmlessness labels, drawn towards 1/2 as `soft` goes from 1 to 0."""
    columns = small_pairs(count)
    rows = zip(columns["prompt"], columns["response_a"], columns["response_b"], strict=True)
    labels = [0.5 + soft * (row[1] - 0.5) for row in columns["label"]]
    return [LabelledPair(*row, label) for row, label in zip(rows, labels, strict=True)]


def train_in(folder: Path, pairs: list[LabelledPair], seed: int = 0, **changes) -> dict[str, float]:
    config = CONFIG.model_copy(update=changes)
    given = (config, small_base(), "none", MODEL.max_length, pairs)
    with TemporaryDirectory() as checkpoints:
        return train_reward_model(*given, folder, Path(checkpoints), seed).details


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    train_in(folder, labelled())
    return folder


def scores_of(folder: Path, prompts: list[str], responses: list[str], longest: int = 64):
    return score_responses(small_base(), "none", folder, longest, prompts, responses)[:, 0]


# ---- the loss


class TwoScores(torch.nn.Module):
    """A "model" whose scores are its inputs: the loss can be computed by hand."""

    def forward(self, scores: torch.Tensor, use_cache: bool):
        assert not use_cache
        return type("Output", (), {"logits": scores[:, None]})()


def soft_loss(a: list[float], b: list[float], label: list[float]) -> torch.Tensor:
    trainer = SoftLabelRewardTrainer.__new__(SoftLabelRewardTrainer)
    trainer._metrics = {"train": {"accuracy": []}}
    trainer.dimensions, trainer.coverage = [""], torch.ones(1)
    trainer.model = TwoScores()
    column = torch.tensor(label)[:, None]
    inputs = {"scores": torch.tensor([*a, *b]), "label": column, "margin": torch.zeros_like(column)}
    return trainer.compute_loss(trainer.model, inputs)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=6
    )
)
def test_the_loss_is_the_cross_entropy_of_the_soft_label(rows):
    a, b, label = (list(column) for column in zip(*rows, strict=True))
    by_hand = [
        p * math.log1p(math.exp(y - x)) + (1 - p) * math.log1p(math.exp(x - y)) for x, y, p in rows
    ]
    expected = pytest.approx(sum(by_hand) / len(by_hand), rel=1e-4, abs=1e-5)
    assert soft_loss(a, b, label).item() == expected
    turned = soft_loss(b, a, [1 - p for p in label])
    assert turned.item() == expected, "a pair has no first side"


def test_the_trainer_starts_from_the_loss_of_its_untrained_model(tmp_path):
    """Through TRL's own trainer: one step at a rate of almost nothing, against plain forwards."""
    pairs = labelled(16, soft=0.6)
    folder = tmp_path / "one"
    details = train_in(folder, pairs, steps=1, learning_rate=1e-12)
    a = scores_of(folder, [p.prompt for p in pairs], [p.response_a for p in pairs])
    b = scores_of(folder, [p.prompt for p in pairs], [p.response_b for p in pairs])
    expected = [
        p.label * math.log1p(math.exp(y - x)) + (1 - p.label) * math.log1p(math.exp(x - y))
        for p, x, y in zip(pairs, a, b, strict=True)
    ]
    assert np.std(a - b) > 1e-3, "an untrained head already tells texts apart"
    assert details["loss"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_it_learns_what_it_is_shown_and_says_what_it_did(tmp_path):
    pairs = labelled(256)
    details = train_in(tmp_path, pairs, steps=120, batch_size=32)
    assert details["steps"] == 120 and details["pairs"] == 256
    prompts = [pair.prompt for pair in pairs]
    margins = scores_of(tmp_path, prompts, [p.response_a for p in pairs])
    margins -= scores_of(tmp_path, prompts, [p.response_b for p in pairs])
    found = metrics(margins, np.array([pair.label for pair in pairs]))
    assert found["accuracy"]["value"] > found["majority"]["value"] + 0.2
    assert found["log_loss"]["value"] < 0.5


def test_soft_labels_teach_their_own_size(tmp_path):
    """One pair, P(a) = 3/4: the margin that is learned is ln 3, not ever more."""
    pair = labelled(1)[0]
    pair = LabelledPair(pair.prompt, pair.response_a, pair.response_b, 0.75)
    train_in(tmp_path, [pair] * 16, steps=60)
    texts = [pair.response_a, pair.response_b]
    a, b = scores_of(tmp_path, [pair.prompt] * 2, texts)
    assert a - b == pytest.approx(math.log(3), abs=0.15)


def test_labels_without_any_preference_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no pair with a preference"):
        train_in(tmp_path, labelled(8, soft=0.0))


def test_on_an_nf4_base_what_is_trained_stays_float32(tmp_path):
    """TRL casts it to bf16, which no float32 score head can be multiplied with."""
    config = CONFIG.model_copy(update={"steps": 4})
    base, pairs = small_base(), labelled(32)
    train_reward_model(config, base, "nf4", MODEL.max_length, pairs, tmp_path, tmp_path / "work", 0)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_training_that_died_goes_on_and_ends_the_same(tmp_path):
    config = CONFIG.model_copy(update={"steps": 12, "checkpoint_every": 5})
    given = (config, small_base(), "none", MODEL.max_length, labelled())
    whole = train_reward_model(*given, tmp_path / "whole", tmp_path / "w1", 0)
    died, resumed = Steps(die_at=8), Steps()
    with pytest.raises(RuntimeError, match="the power went out"):
        train_reward_model(*given, tmp_path / "again", tmp_path / "w2", 0, died)
    again = train_reward_model(*given, tmp_path / "again", tmp_path / "w2", 0, resumed)
    assert resumed.seen == list(range(5, 13)), "it tells of the checkpoint's step, then goes on"
    assert again == whole
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_trained_to_its_end_and_then_lost_ends_the_same(tmp_path):
    """A disk may be full when all steps are done, and their last checkpoint is there; 10 steps end
    within an epoch, where transformers would take an eleventh."""
    config = CONFIG.model_copy(update={"steps": 10, "checkpoint_every": 5})
    given = (config, small_base(), "none", MODEL.max_length, labelled())
    first = train_reward_model(*given, tmp_path / "lost", tmp_path / "work", 0)
    again = Steps()
    assert train_reward_model(*given, tmp_path / "kept", tmp_path / "work", 0, again) == first
    assert again.seen == [5, 6, 7, 8, 9, 10], "first it is told where it goes on"
    name = "adapter_model.safetensors"
    assert (tmp_path / "lost" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


class Steps:
    """A listener that remembers the steps, and may end the training at one."""

    def __init__(self, die_at: int = 0) -> None:
        self.seen: list[int] = []
        self._die_at = die_at

    def __call__(self, step: int, _total: int, _metrics: dict[str, float]) -> None:
        self.seen.append(step)
        if step == self._die_at:
            raise RuntimeError("the power went out")


def test_the_seed_decides_the_weights(reward_folder, tmp_path):
    train_in(tmp_path / "again", labelled())
    train_in(tmp_path / "other", labelled(), seed=1)
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (reward_folder / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (reward_folder / name).read_bytes()


def test_what_is_saved_is_the_adapter_with_its_score_head(reward_folder, tmp_path):
    found = load_file(reward_folder / "adapter_model.safetensors")
    assert any(name.endswith("score.weight") for name in found)
    assert all(torch.isfinite(tensor).all() for tensor in found.values())
    assert not list(reward_folder.rglob("*.bin")) and not list(reward_folder.rglob("*.pt"))


# ---- scoring


@pytest.fixture(scope="module")
def asked() -> tuple[list[str], list[str]]:
    """Prompts and responses of quite different lengths, one pair of texts twice."""
    prompts = texts_of("test", 4) * 10
    rng = np.random.default_rng(0)
    responses = [
        render(all_prompts()[prompt], all_answers()[i])
        for prompt, i in zip(prompts, rng.integers(738, size=40), strict=True)
    ]
    return [*prompts, prompts[3]], [*responses, responses[3]]


def test_a_score_does_not_depend_on_its_batch(reward_folder, asked, monkeypatch):
    together = scores_of(reward_folder, *asked)
    assert together[-1] == together[3] and np.ptp(together) > 0.01
    monkeypatch.setattr(score, "BATCH_TOKENS", 1)
    assert scores_of(reward_folder, *asked) == pytest.approx(together, abs=1e-5)
    monkeypatch.setattr(score, "BATCH_TOKENS", 70)
    backwards = scores_of(reward_folder, asked[0][::-1], asked[1][::-1])
    assert backwards[::-1] == pytest.approx(together, abs=1e-5)


def test_scores_are_those_of_a_plain_forward_of_the_saved_model(reward_folder, asked):
    """Loaded by PEFT alone, row by row, no padding: equal to what `score_responses` says."""
    from peft import PeftModel

    model, tokenizer = load_classifier(small_base(), "none")
    model = PeftModel.from_pretrained(model, str(reward_folder)).eval()
    expected = []
    for prompt, response in zip(*asked, strict=True):
        ids = encode_prompts(tokenizer, [prompt])[0] + encode_responses(tokenizer, [response])[0]
        with torch.no_grad():
            expected.append(model(input_ids=torch.tensor([ids])).logits.item())
    assert scores_of(reward_folder, *asked) == pytest.approx(expected, abs=1e-5)


# ---- truncation


@given(
    prompt=st.lists(st.integers(), min_size=1, max_size=20),
    response=st.lists(st.integers(), min_size=1, max_size=20),
    longest=st.integers(2, 30),
)
def test_truncation_keeps_the_response_and_the_end_of_the_prompt(prompt, response, longest):
    row = truncate(prompt, response, longest)
    assert len(row) == min(longest, len(prompt) + min(len(response), longest - 1))
    kept = response[: longest - 1]
    assert row[-len(kept) :] == kept
    head = row[: -len(kept)]
    assert head and head == prompt[-len(head) :]


def test_scores_are_read_within_max_length(reward_folder, asked):
    """Prompts that differ only in what is cut off are the same."""
    response = "sorry . good luck !"  # with the end 6 tokens: 3 are left for the prompt
    texts = ["how do i bake bread today", "we may please help me bake bread today"]
    same = scores_of(reward_folder, texts, [response] * 2, longest=9)
    apart = scores_of(reward_folder, texts, [response] * 2, longest=64)
    assert same[0] == pytest.approx(same[1], abs=1e-6)
    assert apart[0] != pytest.approx(apart[1], abs=1e-6)


# ---- how good


def metrics(margins, labels, gold=None) -> dict[str, dict]:
    return {row["metric"]: row for row in reward_model_metrics(margins, np.array(labels), gold)}


def test_metrics_of_ten_pairs_by_hand():
    """Eight decided pairs, six of them for a; the model errs once on either side."""
    labels = np.array([1, 1, 2 / 3, 1, 1, 1, 0, 1 / 3, 0.5, 0.5])
    margins = np.array([2, 1, 1, 1, 1, -1.0, -1, 3, 9, -9])
    gold = np.array([0.9, 0.8, 0.6, 0.9, 0.4, 0.7, 0.2, 0.1, 0.9, 0.1])
    found = metrics(margins, labels, gold)
    assert found["accuracy"]["value"] == pytest.approx(6 / 8)
    assert found["majority"]["value"] == pytest.approx(6 / 8)
    assert found["best_possible"]["value"] == pytest.approx(7 / 8)
    towards = [2, 1, 1, 1, 1, -1, 1, -3]
    expected = np.mean([math.log1p(math.exp(-margin)) for margin in towards])
    assert found["log_loss"]["value"] == pytest.approx(expected)
    assert {row["n"] for row in found.values()} == {8}
    # Wilson's interval for 6 of 8 (e.g. Brown, Cai and DasGupta 2001, eq. 4).
    interval = (found["accuracy"]["low"], found["accuracy"]["high"])
    assert interval == pytest.approx((0.4093, 0.9285), abs=1e-4)


def test_metrics_where_there_is_little_to_say():
    none = metrics(np.array([1.0]), [0.5])
    assert none["accuracy"]["value"] is None and none["accuracy"]["n"] == 0
    all_right = metrics(np.ones(5), [1.0] * 5)
    assert all_right["accuracy"]["value"] == 1 and all_right["majority"]["value"] == 1
    assert 0.5 < all_right["accuracy"]["low"] < 1 and all_right["accuracy"]["high"] <= 1
    assert "best_possible" not in all_right
    undecided = metrics(np.zeros(2000), np.random.default_rng(0).integers(0, 2, 2000))
    assert abs(undecided["accuracy"]["value"] - 0.5) < 0.05, "a model without a view gains nothing"


# ---- one scale


def test_the_scale_is_the_spread_within_prompts():
    """Two prompts far apart, each with scores ±1 about its own mean: spread² = 4 / (4 − 2)."""
    raw = np.array([[9.0], [11.0], [-11.0], [-9.0]])
    scale = RewardScale.fit(["x", "x", "y", "y"], raw)
    assert scale.mean == pytest.approx([0]) and scale.scale == pytest.approx([math.sqrt(2)])
    assert scale.apply(np.array([[1.0]])) == pytest.approx(1 / math.sqrt(2))


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-100, 100),
    stretch=st.floats(0.01, 100),
)
def test_normalised_rewards_forget_shift_and_unit_and_survive_json(seed, shift, stretch):
    rng = np.random.default_rng(seed)
    raw, prompts = rng.normal(size=(40, 3)), [str(i % 8) for i in range(40)]
    scale = RewardScale.fit(prompts, raw)
    rewards = scale.apply(raw)
    assert rewards.mean(axis=0) == pytest.approx(np.zeros(3), abs=1e-9)
    groups = [rewards[[p == q for p in prompts]] for q in set(prompts)]
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups) / (40 - 8)
    assert within == pytest.approx(np.ones(3))
    other = shift + stretch * raw
    assert RewardScale.fit(prompts, other).apply(other) == pytest.approx(rewards, abs=1e-6)
    again = RewardScale.from_dict(scale.to_dict())
    assert np.array_equal(again.apply(raw), rewards)


@pytest.mark.parametrize(
    "raw", [[[1.0], [1.0], [5.0], [5.0]], [[1.0], [math.nan], [2.0], [3.0]]], ids=["flat", "nan"]
)
def test_a_score_that_only_tells_prompts_apart_has_no_scale(raw):
    with pytest.raises(ValueError, match="do not vary within prompts"):
        RewardScale.fit(["x", "x", "y", "y"], np.array(raw))


def test_the_package_is_light():
    """The Dagster code server imports the scale: no torch may come with it."""
    heavy = ["torch", "transformers", "trl", "peft", "datasets", "pandas"]
    code = (
        "import sys, panacea_lib.rewards, panacea_lib.rewards.scale\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
