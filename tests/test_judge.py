"""The judge of online training: learned and true rewards, on the problem's one scale."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import DIMENSIONS, MODEL, small_base, small_pairs, texts_of

from panacea_lib.problem_training import RewardTraining
from panacea_lib.rewards import score
from panacea_lib.rewards.judge import ModelRewards, WorldRewards, open_judge
from panacea_lib.rewards.score import score_responses
from panacea_lib.rewards.train import LabelledPair, train_reward_model
from panacea_lib.world.annotators import gold_raw_texts


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> list[Path]:
    """A reward model per dimension, hardly trained: they only have to differ."""
    columns = small_pairs(32)
    folders = []
    for i, name in enumerate(DIMENSIONS):
        rows = zip(columns["prompt"], columns["response_a"], columns["response_b"], strict=True)
        pairs = [
            LabelledPair(*r, label[i]) for r, label in zip(rows, columns["label"], strict=True)
        ]
        folder = tmp_path_factory.mktemp(name)
        numbers = RewardTraining(steps=5, batch_size=16, learning_rate=1e-2, rank=4)
        given = (numbers, small_base(), "none", MODEL.max_length, pairs)
        train_reward_model(*given, folder, folder / "checkpoints", seed=i)
        folders.append(folder)
    return folders


def test_learned_rewards_are_each_model_s_scores_on_the_scale(learned):
    columns = small_pairs(12, seed=1)
    prompts, responses = columns["prompt"], columns["response_a"]
    source = ModelRewards(
        base_model=str(small_base()),
        max_length=MODEL.max_length,
        folders=[str(folder) for folder in learned],
        mean=[1.0, -2.0],
        scale=[2.0, 0.5],
    )
    judge = open_judge(source)
    found = judge(prompts, responses)
    for i, folder in enumerate(learned):
        raw = score_responses(small_base(), "none", folder, MODEL.max_length, prompts, responses)
        raw = raw[:, 0]
        expected = (raw - source.mean[i]) / source.scale[i]
        assert np.ptp(raw) > 1e-3 and found[:, i] == pytest.approx(expected, abs=1e-6)
    assert not np.allclose(found[:, 0] * 2 + 1, found[:, 1] / 2 - 2), "two heads, not one twice"
    assert np.array_equal(judge(prompts, responses), found), "the same bits at every call"


def test_equal_texts_are_scored_once_and_each_beside_its_own_prompt(learned, monkeypatch):
    seen: list[int] = []
    plain = score._score_rows
    monkeypatch.setattr(
        score, "_score_rows", lambda m, p, rows, on: seen.append(len(rows)) or plain(m, p, rows, on)
    )
    numbers = {"mean": [0.0, 0.0], "scale": [1.0, 1.0], "max_length": MODEL.max_length}
    folders = [str(folder) for folder in learned]
    judge = open_judge(ModelRewards(base_model=str(small_base()), folders=folders, **numbers))
    first, second = texts_of("train", 2)
    found = judge([first, second, first, first], ["sorry .", "sorry .", "good luck !", "sorry ."])
    assert seen == [3, 3], "two models, three distinct rows"
    assert np.array_equal(found[0], found[3])
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_the_world_s_judge_says_the_gold_scores_on_the_scale():
    columns = small_pairs(12, seed=1)
    raw = gold_raw_texts(columns["prompt"], columns["response_a"], DIMENSIONS)
    source = WorldRewards(dimensions=DIMENSIONS, mean=[1.0, 0.5], scale=[2.0, 0.5])
    found = open_judge(source)(columns["prompt"], columns["response_a"])
    assert found == pytest.approx((raw - [1.0, 0.5]) / [2.0, 0.5])


def test_naming_a_judge_is_light():
    """Training configurations name one, and the Dagster code server reads those."""
    heavy = ["torch", "transformers", "trl", "peft", "datasets", "pandas"]
    code = f"import sys, panacea_lib.rewards.judge; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_scale_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match="one entry per dimension"):
        WorldRewards(dimensions=DIMENSIONS, mean=[0.0], scale=[1.0])
