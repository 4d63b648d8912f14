"""Steering: rank correlation, regret and evenness, by hand and by their laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea_lib.evaluation import preference_grid, steering

RISING = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])


def one(points: np.ndarray) -> np.ndarray:
    """A single row of weights over prompts."""
    return np.asarray(points, dtype=float)[None]


def test_hand_computed_rank_correlation():
    assert steering.rank(np.array([3.0, 1.0, 1.0, 2.0])).tolist() == [3, 0.5, 0.5, 2]
    a = np.array([1.0, 2, 3, 4, 5])
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: Σd² = 4, so 1 − 6·4 / (5·24).
    assert steering.spearman(a, np.array([2.0, 1, 4, 3, 5])) == pytest.approx(0.8)
    assert steering.spearman(a, -a) == pytest.approx(-1)
    assert steering.spearman(a, np.ones(5)) == 0


@given(st.lists(st.integers(-5, 5), min_size=3, max_size=12))
def test_rank_correlation_sees_order_only(values):
    a = np.array(values, dtype=float)
    b = np.sin(np.arange(len(a)) * 3.0)
    assert steering.spearman(a, b) == pytest.approx(steering.spearman(np.exp(a), b))
    assert steering.spearman(a, b) == pytest.approx(steering.spearman(b, a))
    assert abs(steering.spearman(a, b)) <= 1 + 1e-12


def test_more_weight_buys_more_reward_or_does_not():
    grid = preference_grid(2)
    assert steering.steerability(grid, one(grid**2)) == pytest.approx(np.ones((1, 2)))
    assert steering.steerability(grid, one(grid[::-1])) == pytest.approx(-np.ones((1, 2)))
    deaf = steering.steerability(grid, np.zeros((4, 1, 2)))  # one point for all λ, four rows
    assert deaf.shape == (4, 2) and not deaf.any()


def test_hand_computed_regret():
    # At λ = (0, 1) the middle point has 3 and the own one 1: regret 2; elsewhere the own is best.
    points = np.array([[0.0, 1.0], [1.0, 3.0], [4.0, 0.0]])
    cross = steering.cross_values(RISING, one(points))
    assert cross[0].tolist() == [[1, 3, 0], [0.5, 2, 2], [0, 1, 4]]
    assert steering.regret(cross) == pytest.approx([2 / 3])
    alone = steering.cross_values(RISING, one(points[1:2]))
    assert steering.regret(alone) == pytest.approx([0])


@given(st.integers(0, 10**6))
def test_regret_is_never_negative_and_none_where_every_point_is_best_for_its_own(seed):
    grid, rng = preference_grid(3), np.random.default_rng(seed)
    anything = steering.cross_values(grid, rng.normal(size=(2, len(grid), 3)))
    assert (steering.regret(anything) >= 0).all()
    # Points of a sphere: λ·J is greatest at J = λ/|λ|.
    sphere = grid / np.linalg.norm(grid, axis=1, keepdims=True)
    assert steering.regret(steering.cross_values(grid, one(sphere))) == pytest.approx([0])


def test_neighbours_of_a_lattice():
    two = steering.neighbours(preference_grid(2))
    assert two is not None and two.tolist() == [[i, i + 1] for i in range(10)]
    three = steering.neighbours(preference_grid(3))
    assert (
        three is not None and len(three) == 3 * 15
    )  # edges of a triangle of 5 · 6 / 2 upright ones
    assert steering.neighbours(preference_grid(4)) is None


def test_hand_computed_evenness():
    assert steering.evenness(np.array([5.0, 5.0])) == 1
    assert steering.evenness(np.array([5.0, 0.0])) == pytest.approx(1 / 2)
    assert steering.evenness(np.array([1.0, 3.0])) == pytest.approx(16 / 20)
    assert steering.evenness(np.zeros(3)) is None
    assert steering.evenness(np.array([1e-150, 1e-150])) == 1


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.floats(0.01, 100))
def test_evenness_is_a_share_and_unmoved_by_scale(steps, scale):
    d = np.array(steps)
    even = steering.evenness(d)
    assert even is not None and 1 / len(d) - 1e-9 <= even <= 1 + 1e-9
    assert steering.evenness(d * scale) == pytest.approx(even)
