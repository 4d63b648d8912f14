"""Losses on pairs, per row and dimension.

margin: β·Δlog(π/π_ref) of response a less response b, shape (B,): the implicit reward difference.
label: P(a preferred over b), shape (B, m), NaN where unknown.
reward_delta: normalised r(a) − r(b), shape (B, m).
preference: λ, shape (B, m).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

TAIL = 1e-3  # a token that the reference policy gives less than this
DistillationLoss = Literal["squared", "logistic"]


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


def dpo_slopes(margin: Tensor, label: Tensor) -> Tensor:
    """∂`dpo_losses`/∂margin, shape (B, m)."""
    return (margin.sigmoid()[:, None] - label).nan_to_num()


def distillation_losses(
    margin: Tensor, reward_delta: Tensor, preference: Tensor, kind: DistillationLoss
) -> Tensor:
    """How far the margin is from λ·Δr, per row, shape (B,).

    squared   (margin − λ·Δr)²
    logistic  the cross entropy of σ(margin) against the soft label σ(λ·Δr)

    Both are least where margin = λ·Δr. That holds for every pair at the optimum of the
    KL-regularised objective: π*_λ ∝ π_ref·exp(λ·r/β) is the policy whose implicit reward
    differences are λ·Δr (arXiv 2305.18290, eq. 5).
    """
    target = (preference * reward_delta).sum(1)
    if kind == "squared":
        return (margin - target) ** 2
    return F.binary_cross_entropy_with_logits(margin, target.sigmoid(), reduction="none")


def distillation_slopes(margin: Tensor, reward_delta: Tensor, kind: DistillationLoss) -> Tensor:
    """∂`distillation_losses`/∂margin if λ were each of the vertices, shape (B, m)."""
    margin = margin[:, None]
    if kind == "squared":
        return 2 * (margin - reward_delta)
    return margin.sigmoid() - reward_delta.sigmoid()


def tail_divergence(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """How far a policy raises what the reference policy hardly ever says, nats per response, (B,).

    Σ π(v)·max(0, log π(v)/π_ref(v)) over the tokens v with π_ref(v) < `TAIL`, and over the places
    of the response: the part of the KL divergence that lies there. Samples of the reference policy
    do not show such tokens, so differences of their rewards say nothing of them, and mass leaks
    there unseen. Ours (docs/decisions.md has its measure).

    logprobs, reference: of every token at every place, (B, T, V). mask: (B, T), 1 in the response.
    """
    raised = logprobs.exp() * (logprobs - reference).clamp(min=0)
    tail = raised.where(reference < math.log(TAIL), 0.0)
    return (tail.sum(-1) * mask).sum(1)


def by_dimension(losses: Tensor, preference: Tensor) -> Tensor:
    """Losses of rows (B,) attributed to the dimensions by λ: their weighted means, shape (m,)."""
    weight = preference.sum(0).clamp(min=1e-6)
    return (preference * losses[:, None]).sum(0) / weight


def conflict(slopes: Tensor) -> Tensor:
    """The cosine between each two dimensions' gradients with respect to the margins: (m, m).

    slopes: (B, m). −1 where two dimensions push every pair in opposite directions, 1 where they
    agree. It is the conflict before the network: it costs no backward pass.
    """
    directions = F.normalize(slopes, dim=0)
    return directions.T @ directions
