"""What training is made of: how λ is drawn, and what the objectives say of a pair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import BETA

from panacea_lib.problem_training import PreferenceSampling, Scalarization
from panacea_lib.training.objectives import (
    by_dimension,
    conflict,
    distillation_losses,
    distillation_slopes,
    dpo_losses,
    dpo_slopes,
    tail_divergence,
)
from panacea_lib.training.preferences import draw_preference, draw_preferences
from panacea_lib.training.scalarization import scalarize

SOME_VERTICES = PreferenceSampling(vertex_probability=0.25)
NO_VERTEX = PreferenceSampling(vertex_probability=0.0)


# ---- how λ is drawn


def test_golden_preferences():
    drawn = draw_preferences(PreferenceSampling(), 3, seed=7, step=5, rows=[0, 41, 42])
    assert drawn == pytest.approx(
        np.array(
            [
                [0.0, 1.0, 0.0],
                [0.3349234024000245, 0.6350466893324799, 0.030029908267495485],
                [0.7320853198829939, 0.12378879758590496, 0.14412588253110123],
            ]
        ),
        abs=1e-12,
    )


@settings(max_examples=50, deadline=None)
@given(
    m=st.integers(2, 10),
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 10**6),
    rows=st.lists(st.integers(0, 10**7), min_size=1, max_size=8),
)
def test_a_draw_is_on_the_simplex_and_heeds_nothing_but_seed_step_and_row(m, seed, step, rows):
    np.random.seed(0)
    drawn = draw_preferences(PreferenceSampling(), m, seed, step, rows)
    assert drawn.shape == (len(rows), m) and (drawn >= 0).all()
    assert drawn.sum(axis=1) == pytest.approx(np.ones(len(rows)))
    np.random.seed(1)
    for row, found in zip(rows, drawn, strict=True):
        alone = draw_preferences(PreferenceSampling(), m, seed, step, [row])[0]
        assert np.array_equal(alone, found), "the rest of the batch does not matter"


def test_one_preference_per_batch_where_that_is_asked():
    per_batch = PreferenceSampling(per="batch", vertex_probability=0.0)
    drawn = draw_preferences(per_batch, 3, seed=0, step=2, rows=[5, 9, 1])
    assert (drawn == drawn[0]).all()
    assert np.array_equal(drawn[:1], draw_preferences(per_batch, 3, seed=0, step=2, rows=[77]))
    assert not np.array_equal(drawn[0], draw_preferences(per_batch, 3, seed=0, step=3, rows=[5])[0])


@pytest.mark.parametrize("m", [2, 10])
def test_draws_of_neighbouring_seeds_steps_and_rows_have_nothing_to_do_with_each_other(m):
    base = np.array([draw_preference(NO_VERTEX, m, 0, step, 0) for step in range(2000)])
    others = {
        "step": np.array([draw_preference(NO_VERTEX, m, 0, step + 1, 0) for step in range(2000)]),
        "row": np.array([draw_preference(NO_VERTEX, m, 0, step, 1) for step in range(2000)]),
        "seed": np.array([draw_preference(NO_VERTEX, m, 1, step, 0) for step in range(2000)]),
    }
    for name, other in others.items():
        between = np.corrcoef(base.T, other.T)[:m, m:]
        assert np.abs(between).max() < 0.12, f"correlated with the next {name}"


def test_vertices_are_as_frequent_as_stated_and_the_rest_is_dirichlet():
    drawn = np.array([draw_preference(SOME_VERTICES, 3, 0, step, 9) for step in range(4000)])
    vertex = (drawn == 1).any(axis=1)
    assert abs(vertex.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    assert np.unique(drawn[vertex].argmax(axis=1), return_counts=True)[1].min() > 250
    inside = drawn[~vertex]
    assert inside.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)
    # Var of one weight of Dirichlet(1, 1, 1) is 1/18.
    assert inside.var(axis=0) == pytest.approx([1 / 18] * 3, rel=0.1)


@pytest.mark.parametrize("vertex_probability", [0.0, 0.25])
def test_stratified_draws_let_the_dimensions_take_turns_and_stay_dirichlet(vertex_probability):
    sampling = PreferenceSampling(vertex_probability=vertex_probability, stratified=True)
    drawn = np.array([draw_preference(sampling, 3, 0, step, 5) for step in range(3000)])
    assert (drawn.argmax(axis=1) == (np.arange(3000) + 5) % 3).all()
    assert drawn.sum(axis=1) == pytest.approx(np.ones(3000))
    plain = PreferenceSampling(vertex_probability=vertex_probability)
    other = np.array([draw_preference(plain, 3, 0, step, 5) for step in range(3000)])
    assert np.sort(drawn, axis=1) == pytest.approx(np.sort(other, axis=1)), "who leads, no more"
    assert drawn.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert drawn.std(axis=0) == pytest.approx(other.std(axis=0), rel=0.05)


# ---- what the objectives say

MARGIN = torch.tensor([0.3, -1.2, 2.0, 0.0])
PREFERENCE = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5], [0.0, 1.0]])
FULL = torch.ones(2)
NAN = float("nan")


def linear_dpo(margin, label, preference, coverage):
    """The loss, and the mean losses of the dimensions, as the trainer puts them together."""
    losses = dpo_losses(margin, label) / coverage
    return scalarize(losses, preference, Scalarization()), losses.detach().mean(0)


def cross_entropy(margin: float, p: float) -> float:
    return p * math.log1p(math.exp(-margin)) + (1 - p) * math.log1p(math.exp(margin))


def test_the_dpo_loss_is_the_weighted_cross_entropy():
    label = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, 2 / 3], [1.0, 1.0]])
    loss, parts = linear_dpo(MARGIN, label, PREFERENCE, FULL)
    table = [
        [cross_entropy(m, p) for p in row]
        for m, row in zip(MARGIN.tolist(), label.tolist(), strict=True)
    ]
    assert loss.item() == pytest.approx((PREFERENCE.numpy() * table).sum(axis=1).mean(), rel=1e-6)
    assert parts.tolist() == pytest.approx(np.mean(table, axis=0).tolist(), rel=1e-6)


def test_turning_a_pair_round_changes_nothing():
    label = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    one, _ = linear_dpo(MARGIN, label, PREFERENCE, FULL)
    other, _ = linear_dpo(-MARGIN, 1 - label, PREFERENCE, FULL)
    assert one.item() == pytest.approx(other.item(), rel=1e-6)


def test_unknown_labels_contribute_nothing_and_have_no_gradient():
    label = torch.tensor([[1.0, NAN], [0.0, 1.0], [NAN, NAN], [1.0, NAN]])
    margin = MARGIN.clone().requires_grad_()
    loss, parts = linear_dpo(margin, label, PREFERENCE, FULL)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(parts).all()
    assert margin.grad is not None and torch.isfinite(margin.grad).all()
    assert margin.grad[2] == 0, "a row that nobody labelled"
    assert margin.grad[3] == 0, "a row whose λ weighs only what nobody labelled"
    assert margin.grad[0] != 0
    alone, _ = linear_dpo(MARGIN[:1], label[:1], PREFERENCE[:1], FULL)
    second, _ = linear_dpo(MARGIN[1:2], label[1:2], PREFERENCE[1:2], FULL)
    assert loss.item() == pytest.approx((alone + second).item() / 4, rel=1e-6)


def test_division_by_coverage_gives_a_sparse_dimension_its_weight_back():
    """Half the rows labelled, each counted double: the dense loss on average."""
    label = torch.tensor([[1.0, 0.0]] * 4)
    sparse = label.clone()
    sparse[::2, 1] = NAN
    margin = torch.full((4,), 0.7)
    dense, _ = linear_dpo(margin, label, PREFERENCE[2:3].expand(4, 2), FULL)
    again, parts = linear_dpo(
        margin, sparse, PREFERENCE[2:3].expand(4, 2), torch.tensor([1.0, 0.5])
    )
    assert again.item() == pytest.approx(dense.item(), rel=1e-6)
    assert parts.tolist() == pytest.approx([cross_entropy(0.7, 1), cross_entropy(0.7, 0)], rel=1e-6)


KINDS = st.sampled_from(["squared", "logistic"])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    m=st.integers(2, 10),
    off=st.floats(0.01, 5),
    up=st.booleans(),
    kind=KINDS,
)
def test_distillation_is_least_at_the_exact_implicit_reward_and_nowhere_else(
    seed, m, off, up, kind
):
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(6, m, generator=generator)
    preference = torch.softmax(torch.randn(6, m, generator=generator), dim=1)
    exact = (preference * delta).sum(1).requires_grad_()
    rows = distillation_losses(exact, delta, preference, kind)
    least, parts = rows.mean(), by_dimension(rows.detach(), preference)
    least.backward()
    assert exact.grad is not None and exact.grad.abs().max() < 1e-6
    assert parts.shape == (m,) and torch.isfinite(parts).all()
    wrong = exact.detach().clone()
    wrong[seed % 6] += off if up else -off
    assert distillation_losses(wrong, delta, preference, kind).mean() > least


def test_distillation_at_the_optimum_is_zero_by_the_definition_of_the_optimum():
    """π*_λ ∝ π_ref·exp(λ·r/β) on a world of five answers: β·Δlog(π*/π_ref) is λ·Δr."""
    generator = torch.Generator().manual_seed(0)
    log_ref = torch.log_softmax(torch.randn(5, generator=generator), 0)
    reward = torch.randn(5, 2, generator=generator)
    preference = torch.tensor([0.3, 0.7])
    log_best = torch.log_softmax(log_ref + reward @ preference / BETA, 0)
    a, b = torch.triu_indices(5, 5, offset=1)
    margin = BETA * ((log_best - log_ref)[a] - (log_best - log_ref)[b])
    delta, each = reward[a] - reward[b], preference.expand(len(a), 2)
    assert distillation_losses(margin, delta, each, "squared").max() < 1e-9
    target = (each * delta).sum(1).sigmoid()
    entropy = -(target * target.log() + (1 - target) * (1 - target).log())
    logistic = distillation_losses(margin, delta, each, "logistic")
    assert logistic.tolist() == pytest.approx(entropy.tolist(), rel=1e-5), "no less is possible"


def test_logistic_distillation_at_a_vertex_is_dpo_with_soft_labels():
    delta = torch.tensor([[0.4, -3.0], [-2.0, 1.0], [0.0, 0.2], [5.0, -1.0]])
    for i in range(2):
        vertex = torch.eye(2)[i].expand(4, 2)
        dpo = dpo_losses(MARGIN, delta.sigmoid())[:, i]
        found = distillation_losses(MARGIN, delta, vertex, "logistic")
        assert found.tolist() == pytest.approx(dpo.tolist(), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(2, 6), kind=KINDS)
def test_slopes_are_the_derivatives_of_the_losses(seed, m, kind):
    generator = torch.Generator().manual_seed(seed)
    margin = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    delta = torch.randn(5, m, generator=generator, dtype=torch.float64)
    label = delta.sigmoid().masked_fill(torch.rand(5, m, generator=generator) < 0.3, NAN)
    for i in range(m):
        vertex = torch.eye(m, dtype=torch.float64)[i].expand(5, m)
        (found,) = torch.autograd.grad(dpo_losses(margin, label)[:, i].sum(), margin)
        torch.testing.assert_close(dpo_slopes(margin.detach(), label)[:, i], found)
        loss = distillation_losses(margin, delta, vertex, kind).sum()
        (found,) = torch.autograd.grad(loss, margin)
        torch.testing.assert_close(distillation_slopes(margin.detach(), delta, kind)[:, i], found)


def test_dimensions_that_want_the_opposite_conflict_wholly():
    slopes = torch.tensor([[1.0, -2.0, 0.0], [3.0, -6.0, 0.0], [0.0, 0.0, 4.0]])
    cosines = conflict(slopes)
    assert cosines[0].tolist() == pytest.approx([1, -1, 0])
    assert cosines[2].tolist() == pytest.approx([0, 0, 1])


def test_losses_are_attributed_by_weight():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert by_dimension(losses, PREFERENCE).tolist() == pytest.approx(
        [(1 + 0.25 * 2 + 0.5 * 4) / 1.75, (0.75 * 2 + 0.5 * 4 + 8) / 2.25]
    )


# ---- the tail


def test_the_tail_is_the_divergence_of_raised_tokens_that_the_reference_hardly_says():
    reference = torch.tensor([[[0.9, 0.0995, 0.0005]] * 3]).log()
    policy = torch.tensor([[[0.5, 0.48, 0.02], [0.0995, 0.9, 0.0005], [0.5, 0.48, 0.02]]]).log()
    mask = torch.tensor([[1, 1, 0]])
    found = tail_divergence(policy, reference, mask)
    assert found.tolist() == pytest.approx([0.02 * math.log(0.02 / 0.0005)], rel=1e-5)
    lowered = torch.tensor([[[0.9, 0.09999, 0.00001]] * 3]).log()
    assert tail_divergence(lowered, reference, mask).tolist() == [0.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), spread=st.floats(0.1, 10))
def test_a_tail_is_never_negative_and_the_reference_has_none(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    policy, reference = (
        (spread * torch.randn(2, 3, 20, generator=generator)).log_softmax(-1) for _ in range(2)
    )
    mask = torch.ones(2, 3)
    assert (tail_divergence(policy, reference, mask) >= 0).all()
    assert (tail_divergence(reference, reference, mask) == 0).all()
