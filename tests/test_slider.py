"""The calibrated slider: its laws, that it evens out a front that is known exactly, and that it is
found again where an evaluation stored it."""

import json

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_warehouse import DIMENSIONS, dataset, front

from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.evaluation import preference_grid
from panacea_lib.evaluation.slider import Slider, fit_slider, step_lengths
from panacea_lib.evaluation.steering import evenness
from panacea_lib.stored_slider import check_position, stored_slider
from panacea_lib.warehouse import Warehouse

GRID = preference_grid(2)
# Sixteenths: no sum of them vanishes in rounding.
rewards = arrays(np.float64, (11, 2), elements=st.integers(-64, 64).map(lambda i: i / 16))
positions = st.floats(0, 1)


@given(rewards, positions, positions)
def test_it_rises_from_vertex_to_vertex(points, one, other):
    slider = fit_slider(GRID, points)
    assert (np.diff(slider.position) > 0).all() and (np.diff(slider.weight) > 0).all()
    assert slider.preference(0.0).tolist() == [0, 1] and slider.preference(1.0).tolist() == [1, 0]
    low, high = (slider.preference(t) for t in sorted((one, other)))
    assert low[0] <= high[0] and low[1] >= high[1]
    for preference in (low, high):
        assert preference.min() >= 0 and preference.sum() == pytest.approx(1, abs=1e-12)


@given(positions, st.floats(0.01, 5), st.floats(-3, 3))
def test_even_steps_on_a_straight_front_change_nothing(t, length, start):
    points = start + length * np.stack([GRID[:, 0], -2 * GRID[:, 0]], axis=1)
    assert fit_slider(GRID, points).preference(t)[0] == pytest.approx(t, abs=1e-9)


@given(rewards, positions)
def test_swapping_the_dimensions_turns_it_round(points, t):
    found = fit_slider(GRID, points).preference(t)
    swapped = fit_slider(GRID[:, ::-1], points[:, ::-1]).preference(1 - t)
    assert found == pytest.approx(swapped[::-1], abs=1e-6)


@given(rewards, positions, st.permutations(range(11)))
def test_order_shift_and_unit_of_the_points_do_not_matter(points, t, order):
    found = fit_slider(GRID, points).preference(t)
    moved = fit_slider(GRID[order], 4 * points[order] + np.array([8.0, -8.0])).preference(t)
    assert moved == pytest.approx(found, abs=1e-6)


def test_equal_points_fall_back_to_the_weight_itself_and_say_so():
    for points in (np.full((11, 2), 0.3), 0.1 + 1e-16 * np.arange(22).reshape(11, 2)):
        slider = fit_slider(GRID, points)
        assert not slider.calibrated
        assert [slider.preference(t)[0] for t in (0, 0.3, 1)] == [0, 0.3, 1]
    assert fit_slider(GRID, GRID).calibrated


def test_a_flat_part_is_crossed_quickly():
    moving = np.maximum(0, GRID[:, 0] - 0.5)  # λ₁ below 0.5 changes nothing
    slider = fit_slider(GRID, np.stack([moving, -moving], axis=1))
    assert slider.preference(0.01)[0] == pytest.approx(0.5, abs=0.01)


def test_a_curved_front_is_walked_evenly():
    def front(first: np.ndarray) -> np.ndarray:
        angle = np.pi / 2 * first**3
        return np.stack([np.sin(angle), np.cos(angle)], axis=1)

    slider = fit_slider(GRID, front(GRID[:, 0]))
    calibrated = np.array([slider.preference(t)[0] for t in np.linspace(0, 1, 11)])
    plain, even = (evenness(step_lengths(front(w))) for w in (GRID[:, 0], calibrated))
    assert plain == pytest.approx(0.560, abs=0.001)
    assert even is not None and even > 0.95


@pytest.mark.parametrize(
    ("grid", "points"),
    [
        (preference_grid(3), np.zeros((21, 3))),
        (GRID, np.zeros((10, 2))),
        (GRID, np.full((11, 2), np.nan)),
        (GRID[1:], np.zeros((10, 2))),
        (np.repeat(GRID, 2, axis=0), np.zeros((22, 2))),
    ],
)
def test_what_is_no_front_of_two_dimensions_is_refused(grid, points):
    with pytest.raises(ValueError, match=r"slider needs|finite"):
        fit_slider(grid, points)


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_a_position_lies_between_0_and_1(t):
    with pytest.raises(ValueError, match="from 0 to 1"):
        Slider.identity().preference(t)


def test_programs_get_knots():
    told = json.loads(json.dumps(fit_slider(GRID, GRID).as_json(["warm", "short"])))
    assert told["position"] == pytest.approx(np.linspace(0, 1, 11))
    assert told["preference"][2] == pytest.approx({"warm": 0.2, "short": 0.8})


# ---- stored


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "panacea.duckdb")
    warehouse.save_products([*dataset("1"), front("front1", 0.8)])
    return warehouse


def test_it_is_found_where_the_evaluation_left_it(warehouse):
    slider = stored_slider(warehouse, "demo", "panacea", DIMENSIONS)
    assert slider.calibrated
    assert slider.preference(0.25) == pytest.approx([0.5, 0.5])
    assert slider.preference(0.125) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("problem", "method", "dimensions"),
    [
        ("demo3", "panacea", DIMENSIONS),
        ("demo", "mod", DIMENSIONS),
        ("demo", "panacea", ["helpfulness", "safety"]),
        ("demo", "panacea", DIMENSIONS[::-1]),  # it would go the wrong way
    ],
)
def test_what_was_not_evaluated_so_names_the_command(warehouse, problem, method, dimensions):
    with pytest.raises(MissingUpstreamError, match=f"`panacea materialize {problem}`"):
        stored_slider(warehouse, problem, method, dimensions)


def test_a_warehouse_from_before_there_were_sliders_is_no_error_of_sql(tmp_path):
    with duckdb.connect(tmp_path / "old.snapshot.duckdb") as connection:
        connection.execute("create schema facts; create table facts.current (key varchar)")
    for name in ("old.duckdb", "none.duckdb"):
        with pytest.raises(MissingUpstreamError, match="no slider for panacea"):
            stored_slider(Warehouse(tmp_path / name), "demo", "panacea", DIMENSIONS)


def test_the_reference_has_no_slider(warehouse):
    with pytest.raises(InputError, match="heeds no λ"):
        stored_slider(warehouse, "demo", "reference", DIMENSIONS)


@pytest.mark.parametrize(
    ("dimensions", "t", "told"),
    [
        (["a", "b", "c"], 0.5, r"between two dimensions, and there are 3 \(a, b, c\)"),
        (DIMENSIONS, 1.5, "all weight on harmlessness"),
        (DIMENSIONS, float("nan"), "not nan"),
    ],
)
def test_a_bad_position_is_refused_in_a_sentence(dimensions, t, told):
    with pytest.raises(InputError, match=told):
        check_position(dimensions, t)
