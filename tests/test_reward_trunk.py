"""One trunk with a head per dimension: its loss, what is trained, and scoring that resumes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import DIMENSIONS, MODEL, small_base, small_pairs
from test_rewards import CONFIG, Steps, TwoScores

from panacea_lib.models.base import point_to
from panacea_lib.problem_models import PretrainedModel
from panacea_lib.rewards import score
from panacea_lib.rewards.judge import ModelRewards, open_judge
from panacea_lib.rewards.score import RewardModels, heads_of, score_responses
from panacea_lib.rewards.soft_trainer import SoftLabelRewardTrainer
from panacea_lib.rewards.train import LabelledPair, labelled_rows, train_reward_trunk

ADAPTER = "adapter_model.safetensors"


def by_dimension(count: int = 64, keep: float = 1.0) -> dict[str, list[LabelledPair]]:
    """Gold labels of both dimensions; of the second, every pair beyond `keep` is unknown."""
    columns = small_pairs(count)
    texts = list(zip(columns["prompt"], columns["response_a"], columns["response_b"], strict=True))
    found = {}
    for i, name in enumerate(DIMENSIONS):
        kept = count if i == 0 else round(keep * count)
        labels = [row[i] for row in columns["label"]]
        found[name] = [
            LabelledPair(*t, label) for t, label in zip(texts[:kept], labels[:kept], strict=True)
        ]
    return found


def train_in(folder: Path, pairs, seed: int = 0, base: Path | None = None, on_step=None, **changes):
    config = CONFIG.model_copy(update={"trunk": "shared", **changes})
    given = (config, base or small_base(), "none", MODEL.max_length, pairs, folder)
    return train_reward_trunk(*given, folder.with_name(f"{folder.name}-work"), seed, on_step)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trunk") / "trained"
    train_in(folder, by_dimension(128), steps=60)
    return folder


# ---- rows


def test_dimensions_share_the_rows_of_the_same_texts():
    a, b = LabelledPair("p", "x", "y", 1.0), LabelledPair("p", "x", "z", 0.0)
    rows = labelled_rows({"one": [a, b], "two": [LabelledPair("p", "x", "z", 0.75)]}, margin=0)
    assert rows.pairs == [("p", "x", "y"), ("p", "x", "z")]
    assert np.array_equal(rows.label, [[1, math.nan], [0, 0.75]], equal_nan=True)
    assert rows.coverage.tolist() == [1, 0.5] and not rows.margin.any()
    again = labelled_rows({"": [a, a]}, margin=0)
    assert len(again.pairs) == 2, "what was labelled twice counts twice"


def test_a_margin_is_a_score_difference_in_units_of_its_dimension():
    pairs = [LabelledPair("p", "x", str(d), float(d > 0), d) for d in (3.0, -4.0)]
    pairs.append(LabelledPair("p", "x", "ungraded", 1.0))
    rows = labelled_rows({"": pairs}, margin=2.0)
    unit = 2 / math.sqrt((9 + 16) / 2)
    assert rows.margin[:, 0] == pytest.approx([3 * unit, -4 * unit, 0])
    assert not labelled_rows({"": pairs}, margin=0).margin.any()


def test_a_dimension_without_any_preference_is_named():
    pairs = by_dimension(4) | {"harmlessness": [LabelledPair("p", "x", "y", 0.5)]}
    with pytest.raises(ValueError, match=r"no pair with a preference .* on harmlessness"):
        labelled_rows(pairs, margin=0)


# ---- the loss


class Scores(TwoScores):
    """As there, of two heads."""

    def forward(self, scores: torch.Tensor, use_cache: bool):
        return type("Output", (), {"logits": scores})()


def loss_of(scores: torch.Tensor, label: torch.Tensor, margin, coverage: list[float]) -> float:
    """scores: (2B, m)."""
    trainer = SoftLabelRewardTrainer.__new__(SoftLabelRewardTrainer)
    names = [str(i) for i in range(label.shape[1])]
    trainer._metrics = {"train": {f"accuracy/{name}": [] for name in names}}
    trainer.dimensions, trainer.coverage = names, torch.tensor(coverage)
    trainer.model = Scores()
    inputs = {"scores": scores, "label": label, "margin": margin}
    return trainer.compute_loss(trainer.model, inputs).item()


def test_unknown_labels_count_nothing_and_sparse_dimensions_weigh_alike():
    scores = torch.tensor([[1.0, 2.0], [0.0, 1.0], [0.5, 0.0], [2.0, 3.0]])
    label = torch.tensor([[1.0, math.nan], [0.25, 1.0]])
    first = (math.log1p(math.exp(-0.5)) + 0.25 * math.log1p(math.exp(2))) / 2
    first += 0.75 * math.log1p(math.exp(-2)) / 2
    second = math.log1p(math.exp(2)) / 2 / 0.5  # one of two rows, at a coverage of one half
    found = loss_of(scores, label, torch.zeros(2, 2), [1.0, 0.5])
    assert found == pytest.approx((first + second) / 2, rel=1e-5)


def test_margins_are_trl_s_where_a_is_preferred_and_mirrored_where_b_is():
    a, b = torch.tensor([0.3, -1.0]), torch.tensor([0.1, 0.5])
    margin = torch.tensor([0.7, 0.2])
    trl = -torch.nn.functional.logsigmoid(a - b - margin).mean().item()
    ones, zeros = torch.ones(2, 1), torch.zeros(2, 1)
    one_way = loss_of(torch.cat([a, b])[:, None], ones, margin[:, None], [1.0])
    turned = loss_of(torch.cat([b, a])[:, None], zeros, -margin[:, None], [1.0])
    assert one_way == pytest.approx(trl, rel=1e-5) and turned == pytest.approx(trl, rel=1e-5)


def test_graded_pairs_are_kept_further_apart(tmp_path):
    (texts,) = [(p.prompt, p.response_a, p.response_b) for p in by_dimension(1)["helpfulness"]]
    pairs = {"": [LabelledPair(*texts, 0.75, 2.0)] * 16}
    train_in(tmp_path / "one", pairs, steps=60, margin=1.0)
    found = scores_of(tmp_path / "one", [texts[0]] * 2, list(texts[1:]))[:, 0]
    assert found[0] - found[1] == pytest.approx(math.log(3) + 1, abs=0.15)


# ---- training


def scores_of(folder: Path, prompts: list[str], responses: list[str], **how) -> np.ndarray:
    given = (small_base(), "none", folder, MODEL.max_length, prompts, responses)
    return score_responses(*given, **how)


def test_one_trunk_learns_every_dimension(trunk):
    columns = small_pairs(128)
    assert heads_of(trunk) == 2
    a, b = (scores_of(trunk, columns["prompt"], columns[f"response_{side}"]) for side in "ab")
    label = np.array(columns["label"])
    decided = label != 0.5
    right = ((a - b > 0) == (label > 0.5)) & decided
    assert (right.sum(axis=0) / decided.sum(axis=0) > 0.75).all()
    assert np.corrcoef(a.T)[0, 1] < 0.9, "two heads, not one twice"


def test_a_shared_trunk_that_died_goes_on_and_its_seed_decides_it(tmp_path):
    pairs, changes = by_dimension(64, keep=0.3), {"steps": 12, "checkpoint_every": 5}
    whole = train_in(tmp_path / "whole", pairs, **changes)
    with pytest.raises(RuntimeError, match="the power went out"):
        train_in(tmp_path / "again", pairs, on_step=Steps(die_at=8), **changes)
    resumed = Steps()
    assert train_in(tmp_path / "again", pairs, on_step=resumed, **changes) == whole
    assert resumed.seen == list(range(5, 13)), "it tells of the checkpoint's step, then goes on"
    train_in(tmp_path / "other", pairs, seed=1, **changes)
    first, again, other = (
        (tmp_path / name / ADAPTER).read_bytes() for name in ("whole", "again", "other")
    )
    assert first == again and first != other
    shown = {(row["metric"], row["dimension"]) for row in whole.curves}
    assert shown == {("loss", ""), *(("accuracy", name) for name in DIMENSIONS)}


def test_a_head_alone_leaves_the_trunk_as_it_is(tmp_path):
    pairs = by_dimension(128)
    untrained = train_in(tmp_path / "one", pairs, trained="head", steps=1, learning_rate=1e-12)
    details = train_in(tmp_path / "head", pairs, trained="head", steps=60, learning_rate=3e-2)
    (name,) = load_file(tmp_path / "head" / ADAPTER)
    assert name.endswith("score.weight") and heads_of(tmp_path / "head") == 2
    assert details.details["loss"] < untrained.details["loss"] - 0.05
    columns = small_pairs(128)
    a, b = (scores_of(tmp_path / "head", columns["prompt"], columns[f"response_{s}"]) for s in "ab")
    label = np.array(columns["label"])
    assert (((a > b) == (label > 0.5))[label != 0.5]).mean() > 0.6


def test_on_an_nf4_base_all_heads_stay_float32(tmp_path):
    config = CONFIG.model_copy(update={"steps": 3, "trunk": "shared"})
    given = (config, small_base(), "nf4", MODEL.max_length, by_dimension(32))
    train_reward_trunk(*given, tmp_path / "r", tmp_path / "work", 0)
    weights = load_file(tmp_path / "r" / ADAPTER)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert heads_of(tmp_path / "r") == 2


def test_another_model_than_the_base_model_can_be_named(tmp_path):
    """The pointer that a reward model's own folder holds is as good as the model's folder."""
    pointer = tmp_path / "pointer"
    pointer.mkdir()
    point_to(PretrainedModel(kind="pretrained", model=str(small_base())), pointer)
    pairs = by_dimension(32)
    train_in(tmp_path / "there", pairs, steps=3)
    train_in(tmp_path / "named", pairs, base=pointer, steps=3)
    weights = [load_file(tmp_path / name / ADAPTER) for name in ("there", "named")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# ---- scoring


def test_a_trunk_is_one_judge_of_all_dimensions(trunk):
    columns = small_pairs(12, seed=1)
    prompts, responses = columns["prompt"], columns["response_a"]
    source = ModelRewards(
        base_model=str(small_base()),
        max_length=MODEL.max_length,
        folders=[str(trunk)],
        mean=[1.0, -2.0],
        scale=[2.0, 0.5],
    )
    expected = (scores_of(trunk, prompts, responses) - source.mean) / source.scale
    assert open_judge(source)(prompts, responses) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="one entry per dimension"):
        ModelRewards(**source.model_dump() | {"folders": ["a", "b", "c"]})


def test_several_models_of_several_heads_are_refused(trunk):
    with pytest.raises(ValueError, match=r"one head each, these have \[2, 2\]"):
        RewardModels(small_base(), "none", [trunk, trunk], MODEL.max_length)


def test_a_scoring_that_died_goes_on_from_its_chunks(trunk, tmp_path, monkeypatch):
    columns = small_pairs(40, seed=2)
    asked = columns["prompt"], columns["response_a"]
    whole = scores_of(trunk, *asked)
    monkeypatch.setattr(score, "CHUNK", 16)
    with pytest.raises(RuntimeError, match="the power went out"):
        scores_of(trunk, *asked, chunks=tmp_path, on_step=Steps(die_at=32))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "scores-0-16.npy", "scores-16-32.npy",
    ]  # fmt: skip
    (tmp_path / "scores-32-40.partial.npy").write_bytes(b"half a file")
    scored: list[int] = []
    plain = score._score_rows
    monkeypatch.setattr(
        score, "_score_rows", lambda m, p, r, on: scored.append(len(r)) or plain(m, p, r, on)
    )
    again = scores_of(trunk, *asked, chunks=tmp_path)
    assert scored == [8] and again == pytest.approx(whole, abs=1e-5)


def test_nothing_to_score_is_an_empty_answer(trunk):
    assert scores_of(trunk, [], []).shape == (0, 2)
