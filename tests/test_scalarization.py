"""How m losses become one: a weighted sum, a maximum, and what lies between them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from panacea_lib.problem_training import Scalarization
from panacea_lib.training.scalarization import scalarize

LINEAR = Scalarization()
MAXIMUM = Scalarization(kind="tchebycheff")
LOSSES = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
HALF = torch.tensor([[0.25, 0.75]] * 2)
BATCH_KINDS = ["tchebycheff", "smooth_tchebycheff"]


def smooth(temperature: float, **changes) -> Scalarization:
    return Scalarization(kind="smooth_tchebycheff", temperature=temperature, **changes)


def value(losses: Tensor, preference: Tensor, config: Scalarization) -> float:
    found = scalarize(losses, preference, config)
    assert found.shape == ()
    return found.item()


def batch(seed: int, m: int) -> tuple[Tensor, Tensor]:
    """Losses (5, m) as DPO and SFT have them, and one λ inside the simplex for all rows."""
    generator = torch.Generator().manual_seed(seed)
    losses = 3 * torch.rand(5, m, generator=generator, dtype=torch.float64)
    preference = torch.softmax(torch.randn(m, generator=generator, dtype=torch.float64), 0)
    return losses, preference.expand(5, m)


def test_values_worked_by_hand():
    own = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert value(LOSSES, own, LINEAR) == pytest.approx((0.25 * 1 + 0.75 * 4 + 3) / 2)
    assert value(LOSSES, HALF, MAXIMUM) == pytest.approx(0.75 * 3), "the means are 2 and 3"
    soft = 0.5 * math.log(math.exp(0.5 / 0.5) + math.exp(2.25 / 0.5))
    assert value(LOSSES, HALF, smooth(0.5)) == pytest.approx(soft)
    ideal = {"ideal": [0.0, 2.5]}  # 0.25·2 against 0.75·(3 − 2.5)
    assert value(LOSSES, HALF, MAXIMUM.model_copy(update=ideal)) == pytest.approx(0.5)
    soft = 0.5 * math.log(math.exp(0.5 / 0.5) + math.exp(0.375 / 0.5))
    assert value(LOSSES, HALF, smooth(0.5, **ideal)) == pytest.approx(soft)


def test_the_maximum_is_of_batch_means_not_the_mean_of_row_maxima():
    even = torch.full((2, 2), 0.5)
    assert value(LOSSES, even, MAXIMUM) == pytest.approx(1.5)
    assert value(LOSSES, even, MAXIMUM) < (0.5 * LOSSES).max(1).values.mean().item()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(2, 10), temperature=st.floats(1e-3, 10))
def test_smooth_is_above_the_maximum_by_no_more_than_its_temperature_allows(seed, m, temperature):
    losses, preference = batch(seed, m)
    least = value(losses, preference, MAXIMUM)
    found = value(losses, preference, smooth(temperature))
    assert least - 1e-12 <= found <= least + temperature * math.log(m) + 1e-12
    colder = value(losses, preference, smooth(temperature / 2))
    assert colder <= found + 1e-12, "nearer to it as μ falls"
    assert value(losses, preference, smooth(1e-9)) == pytest.approx(least, abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(2, 10), which=st.integers(0, 9))
def test_at_a_vertex_there_is_that_dimension_s_loss_only(seed, m, which):
    losses, _ = batch(seed, m)
    losses.requires_grad_()
    vertex = torch.eye(m, dtype=torch.float64)[which % m].expand(5, m)
    expected = torch.zeros(5, m, dtype=torch.float64)
    expected[:, which % m] = 1 / 5
    for config in (LINEAR, MAXIMUM, smooth(1e-3)):
        loss = scalarize(losses, vertex, config)
        mean = losses[:, which % m].mean().item()
        assert loss.item() == pytest.approx(mean, abs=1e-3 * math.log(m) + 1e-12)
        (gradient,) = torch.autograd.grad(loss, losses)
        if config.kind != "smooth_tchebycheff":
            assert torch.allclose(gradient, expected)
        others = [i for i in range(m) if i != which % m]
        assert gradient[:, others].abs().max() == 0, "where λ is 0 there is no gradient"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(2, 6))
def test_gradients_are_those_of_the_definitions(seed, m):
    losses, preference = batch(seed, m)
    losses.requires_grad_()
    weighted = (preference[0] * losses.mean(0)).detach()
    (linear,) = torch.autograd.grad(scalarize(losses, preference, LINEAR), losses)
    assert torch.allclose(linear, preference / 5)
    (hard,) = torch.autograd.grad(scalarize(losses, preference, MAXIMUM), losses)
    leads = torch.nn.functional.one_hot(weighted.argmax(), m)
    assert torch.allclose(hard, leads * preference / 5), "only the worst dimension is trained"
    (soft,) = torch.autograd.grad(scalarize(losses, preference, smooth(0.3)), losses)
    assert torch.allclose(soft, torch.softmax(weighted / 0.3, 0) * preference / 5)
    assert torch.autograd.gradcheck(lambda x: scalarize(x, preference, smooth(0.3)), losses)


def test_a_tiny_temperature_neither_overflows_nor_loses_the_gradient():
    losses = (1e4 * LOSSES).requires_grad_()
    loss = scalarize(losses, HALF, smooth(1e-6))
    loss.backward()
    assert loss.item() == pytest.approx(0.75 * 3e4)
    assert losses.grad is not None and losses.grad.isfinite().all()


@pytest.mark.parametrize("kind", BATCH_KINDS)
def test_one_preference_per_batch_and_an_ideal_of_the_right_length(kind):
    config = Scalarization(kind=kind)
    differing = torch.tensor([[0.25, 0.75], [0.75, 0.25]])
    with pytest.raises(ValueError, match="rows' λ differ"):
        scalarize(LOSSES, differing, config)
    scalarize(LOSSES, differing, LINEAR)
    with pytest.raises(ValueError, match=r"ideal.*2 dimensions, not 3"):
        scalarize(LOSSES, HALF, Scalarization(kind=kind, ideal=[0.0, 0.0, 0.0]))


def test_shapes_that_would_be_broadcast_are_refused():
    for losses, preference in ((LOSSES, HALF[0]), (LOSSES[:1], HALF), (LOSSES[0], HALF[0])):
        with pytest.raises(ValueError, match=r"\(B, m\)"):
            scalarize(losses, preference, LINEAR)
