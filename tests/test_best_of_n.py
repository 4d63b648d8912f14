"""Best-of-n in closed form, against drawing and by its laws."""

from itertools import combinations

import numpy as np
import pytest

from panacea_lib.evaluation import best_of_n, preference_grid


def rewards(prompts: int = 3, drawn: int = 7, m: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(prompts, drawn, m))


def test_it_is_the_mean_over_every_choice_of_n():
    reward, grid, n = rewards(), preference_grid(2), 3
    found = best_of_n(reward, reward, grid, n)
    for g, weights in enumerate(grid):
        for p, answers in enumerate(reward):
            best = [
                answers[list(chosen)][(answers[list(chosen)] @ weights).argmax()]
                for chosen in combinations(range(7), n)
            ]
            assert found.reward[g, p] == pytest.approx(np.mean(best, axis=0))


def test_the_selector_need_not_be_the_judge():
    selecting, judged = rewards(), rewards(seed=1)
    found = best_of_n(selecting, judged, preference_grid(2), 7)
    # Of all seven, the one that the selector likes best is judged.
    best = (selecting @ preference_grid(2)[3]).argmax(axis=1)
    assert found.reward[3] == pytest.approx(judged[np.arange(3), best])


def test_one_is_the_reference_and_more_is_better_and_further_away():
    reward, grid = rewards(drawn=16), preference_grid(2)
    found = {n: best_of_n(reward, reward, grid, n) for n in (1, 2, 4, 16)}
    assert found[1].log_ratio == pytest.approx(0)
    assert found[1].reward[5] == pytest.approx(reward.mean(axis=1))
    values = [(grid[:, None] * f.reward).sum(axis=2).mean() for f in found.values()]
    assert values == sorted(values)
    assert found[16].log_ratio[0, 0] == pytest.approx(np.log(16) - 15 / 16)
    assert found[16].method == "best_of_16"
    assert found[16].samples.tolist() == [3 * 16] * 11
    assert found[16].answers == 3 * 16, "all points share them"


def test_the_kl_bound_is_exact_for_answers_without_ties():
    # n uniform draws: the best has density n·x^(n−1) and KL log n − (n − 1)/n from the uniform one.
    n, x = 16, (np.arange(200_000) + 0.5) / 200_000
    density = n * x ** (n - 1)
    kl = (density * np.log(density)).mean()
    reward = rewards(drawn=n)
    assert best_of_n(reward, reward, preference_grid(2), n).log_ratio[0, 0] == pytest.approx(
        kl, abs=1e-4
    )


def test_too_few_answers_are_refused():
    with pytest.raises(ValueError, match="best of 16 answers needs as many, not 7"):
        best_of_n(rewards(), rewards(), preference_grid(2))
