"""Losses on pairs: how the m dimensions of preference become one number per row.

margin: β·Δlog(π/π_ref) of response a less response b, shape (B,): the implicit reward difference.
label: P(a preferred over b), shape (B, m), NaN where unknown.
reward_delta: normalised r(a) − r(b), shape (B, m).
preference: λ, shape (B, m).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_losses(margin: Tensor, label: Tensor) -> Tensor:
    """DPO's loss per row and dimension, shape (B, m), 0 where the label is unknown.

    −p·log σ(margin) − (1−p)·log σ(−margin): arXiv 2305.18290, eq. 7 for p = 1; a soft p as in
    conservative DPO. One forward serves all dimensions: the order is only a sign.
    """
    known = ~label.isnan()
    p = torch.where(known, label, 0.5)
    margin = margin[:, None]
    losses = -(p * F.logsigmoid(margin) + (1 - p) * F.logsigmoid(-margin))
    return losses * known


def linear_dpo_loss(
    margin: Tensor, label: Tensor, preference: Tensor, coverage: Tensor
) -> tuple[Tensor, Tensor]:
    """Σᵢ λᵢ · lossᵢ / coverageᵢ, averaged over the batch (arXiv 2402.02030, eq. 5, linear).

    coverage: the share of the training set that dimension i labels, shape (m,), fixed, so that λ
    keeps its meaning where labels are sparse. Returns the loss and the m mean losses.
    """
    losses = dpo_losses(margin, label) / coverage
    return (preference * losses).sum(1).mean(), losses.detach().mean(0)


def reward_distillation_loss(
    margin: Tensor, reward_delta: Tensor, preference: Tensor
) -> tuple[Tensor, Tensor]:
    """(margin − λ·Δr)², averaged over the batch.

    Its minimum is the optimum of the KL-regularised objective: π*_λ ∝ π_ref·exp(λ·r/β) is the
    policy whose implicit reward differences are λ·Δr for every pair (arXiv 2305.18290, eq. 5).
    Returns the loss and, per dimension, the squared error attributed by λ, shape (m,).
    """
    error = (margin - (preference * reward_delta).sum(1)) ** 2
    weight = preference.sum(0).clamp(min=1e-6)
    return error.mean(), ((preference * error[:, None]).sum(0) / weight).detach()
