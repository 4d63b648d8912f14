"""Figures of a front: hand-computed values, and laws that hold for every front."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea_lib.evaluation import metrics, preference_grid

# Three points on a front, and one that (2, 2) dominates.
FRONT = np.array([[3.0, 0.0], [2.0, 2.0], [0.0, 3.0]])
DOMINATED = np.array([[1.0, 1.0]])
ORIGIN = np.zeros(2)


def fronts(m: int, least: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Up to nine points of m small integers: ties and dominated points are common."""
    point = st.lists(st.integers(-3, 6), min_size=m, max_size=m)
    return st.lists(point, min_size=least, max_size=9).map(lambda rows: np.array(rows, float))


def test_the_grids_never_change():
    two = preference_grid(2)
    assert two.tolist() == [[i / 10, (10 - i) / 10] for i in range(11)]
    three = preference_grid(3)
    assert three.shape == (21, 3)
    assert three[:3].tolist() == [[0, 0, 1], [0, 0.2, 0.8], [0, 0.4, 0.6]]
    four = preference_grid(4)
    assert four.shape == (64, 4)
    assert four[:5].tolist() == [*np.eye(4).tolist(), [0.25] * 4]
    assert four[5] == pytest.approx(GOLDEN_4[0], abs=1e-12)
    assert four[63] == pytest.approx(GOLDEN_4[1], abs=1e-12)
    assert preference_grid(10)[63] == pytest.approx(GOLDEN_10, abs=1e-12)


@pytest.mark.parametrize("m", range(2, 11))
def test_every_grid_lies_on_the_simplex_and_holds_its_vertices(m):
    grid = preference_grid(m)
    assert (grid >= 0).all()
    assert grid.sum(axis=1) == pytest.approx(1)
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert set(map(tuple, np.eye(m))) <= set(map(tuple, grid))


@pytest.mark.parametrize("m", [0, 1, 11])
def test_grids_have_two_to_ten_dimensions(m):
    with pytest.raises(ValueError, match="2 to 10"):
        preference_grid(m)


def test_hand_computed_front():
    front = np.vstack([FRONT, DOMINATED])
    assert metrics.nondominated(front).tolist() == [True, True, True, False]
    assert metrics.hypervolume(front, ORIGIN) == 4  # boxes: 2 × 2; the ends touch the axes
    assert metrics.hypervolume(front, ORIGIN - 1) == 4 * 1 + 3 * 2 + 1 * 1
    assert metrics.hypervolume_error(front, ORIGIN) == 0
    assert metrics.points_outside(front, ORIGIN) == 2
    # Neighbours: gaps (1, 2) and (2, 1), squared distances 5 and 5.
    assert metrics.sparsity(front) == 5
    # Nearest neighbours in L1: 3, 3 and 3.
    assert metrics.spacing(front) == 0
    grid = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert metrics.inner_product(grid, FRONT) == pytest.approx((3 + 2 + 3) / 3)


def test_hand_computed_spacing_of_an_uneven_front():
    uneven = np.array([[5.0, 0.0], [4.0, 1.0], [0.0, 7.0]])
    # Nearest neighbours in L1: 2, 2 and 10; mean 14/3, sample variance 64/3.
    assert metrics.spacing(uneven) == pytest.approx((64 / 3) ** 0.5)


def test_hand_computed_front_in_three_dimensions():
    corners = np.array([[2.0, 1, 1], [1, 2, 1], [1, 1, 2]])
    assert metrics.hypervolume(corners, np.zeros(3)) == pytest.approx(4)  # 1 + 3 boxes of 1 × 1 × 1
    # Every objective is 1, 1, 2 in order: one gap of 1 each, over two gaps.
    assert metrics.sparsity(corners) == pytest.approx(3 / 2)


def test_hand_computed_distance_to_a_front():
    # From (3, 0) nothing is missed at (4, 0); from (0, 3) one unit at (1, 2), whose surplus of 1
    # does not count.
    ours, best = np.array([[4.0, 0.0], [1.0, 2.0]]), np.array([[3.0, 0.0], [0.0, 3.0]])
    assert metrics.igd_plus(ours, best) == pytest.approx(0.5)
    assert metrics.igd_plus(best, best) == 0
    assert metrics.igd_plus(best + 1, best) == 0


@given(fronts(3), st.lists(st.integers(-3, 6), min_size=3, max_size=3))
def test_a_further_point_never_raises_the_distance(front, point):
    best = np.array([[6.0, 0, 0], [0, 6, 0], [0, 0, 6]])
    more = metrics.igd_plus(np.vstack([front, point]), best)
    assert more <= metrics.igd_plus(front, best) + 1e-12


def test_one_point_has_no_neighbour():
    for alone in (FRONT[1:2], np.vstack([FRONT[1:2], DOMINATED]), np.repeat(FRONT[1:2], 4, axis=0)):
        assert metrics.sparsity(alone) is None
        assert metrics.spacing(alone) is None
        assert metrics.hypervolume(alone, ORIGIN) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "measure",
    [
        metrics.nondominated,
        metrics.sparsity,
        metrics.spacing,
        lambda points: metrics.hypervolume(points, ORIGIN),
        lambda points: metrics.inner_product(np.full(points.shape, 0.5), points),
    ],
)
def test_what_is_not_a_number_is_refused(measure, bad):
    with pytest.raises(ValueError, match=r"point 1 .*not finite"):
        measure(np.array([[1.0, 2.0], [bad, 1.0]]))
    with pytest.raises(ValueError, match="a front has shape"):
        measure(np.empty((0, 2)))


def test_many_dimensions_are_approximated_and_the_error_is_stated():
    m = 8
    corners = np.ones((m, m)) + np.eye(m)  # the unit box and m unit boxes around it
    found = metrics.hypervolume(corners, np.zeros(m))
    error = metrics.hypervolume_error(corners, np.zeros(m))
    assert 0 < error < 0.01 * (1 + m)
    assert abs(found - (1 + m)) < 5 * error


@given(fronts(3), st.lists(st.integers(-3, 6), min_size=3, max_size=3))
def test_a_further_point_never_lowers_hypervolume(front, point):
    reference = np.full(3, -2.0)
    before = metrics.hypervolume(front, reference)
    assert metrics.hypervolume(np.vstack([front, point]), reference) >= before - 1e-9


@given(fronts(3), st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(front, random):
    order = list(range(len(front)))
    random.shuffle(order)
    for measure in (metrics.sparsity, metrics.spacing, lambda f: metrics.hypervolume(f, -4)):
        before, after = measure(front), measure(front[order])
        assert (before is None) == (after is None)
        assert before is None or after == pytest.approx(before)


@given(fronts(2, least=2), st.integers(-5, 5))
def test_a_shift_moves_no_figure_of_shape(front, shift):
    assert metrics.sparsity(front + shift) == metrics.sparsity(front)
    assert metrics.spacing(front + shift) == metrics.spacing(front)
    shifted = metrics.hypervolume(front + shift, np.full(2, -4.0 + shift))
    assert shifted == pytest.approx(metrics.hypervolume(front, np.full(2, -4.0)))


@settings(max_examples=50)
@given(fronts(4))
def test_the_pareto_filter_is_idempotent_and_loses_no_volume(front):
    kept = front[metrics.nondominated(front)]
    assert metrics.nondominated(kept).all()
    reference = np.full(4, -4.0)
    assert metrics.hypervolume(kept, reference) == pytest.approx(
        metrics.hypervolume(front, reference)
    )
    for point in front:
        assert (kept >= point).all(axis=1).any()


GOLDEN_4 = [
    [0.141068527666797, 0.209357610940672, 0.335689441375962, 0.313884420016569],
    [0.004860144446186, 0.513540232689325, 0.026076970245858, 0.455522652618631],
]
GOLDEN_10 = [
    0.007386122304631,
    0.010398011634223,
    0.199578531614421,
    0.078057080035680,
    0.311634185788545,
    0.108165071662519,
    0.058671806637642,
    0.056305578080791,
    0.123865991575340,
    0.045937620666207,
]
