"""The ruler: what the reference policy has, and what the optimum could have, at every λ.

V_ref(λ) = λ·E_ref[r] and V*(λ) = β·log E_ref[exp(λ·r/β)], per prompt x and then averaged over x
(the closed form of KL-regularised reward maximisation: DPO, arXiv 2305.18290, eq. 4).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from panacea_lib.world.exact import Enumeration


@dataclass(frozen=True)
class Ruler:
    """Values on G preference vectors and P prompts, shapes (G, P).

    reference_reward: (m,) the reference policy's mean reward. optimal_reward (G, m) and optimal_kl
    (G,), nats, are those of π*_λ, averaged over prompts; None where only V* itself is estimated.
    """

    optimal_value: np.ndarray
    reference_value: np.ndarray
    reference_reward: np.ndarray
    optimal_reward: np.ndarray | None
    optimal_kl: np.ndarray | None
    exact: bool


def exact_ruler(enumeration: "Enumeration", grid: np.ndarray, beta: float) -> Ruler:
    """The ruler of the embedded world: nothing is estimated. grid: (G, m)."""
    optimum = enumeration.optimum(grid, beta)
    reference_P_m = enumeration.reference_reward()
    return Ruler(
        optimal_value=optimum.value,
        reference_value=grid @ reference_P_m.T,
        reference_reward=reference_P_m.mean(axis=0),
        optimal_reward=optimum.reward.mean(axis=1),
        optimal_kl=optimum.kl.mean(axis=1),
        exact=True,
    )


def estimated_ruler(reference_rewards: np.ndarray, grid: np.ndarray, beta: float) -> Ruler:
    """The ruler of a real model, from n ≥ 2 reference samples a prompt. reference_rewards:
    (P, n, m), normalised; grid: (G, m).

    V* is β times a jackknifed log-mean-exp. It cannot see answers better than the best of its n
    samples, so it is biased low and **value ratios measured with it read high**, the more so the
    smaller n and β are; in the embedded world the exact ruler says by how much.
    """
    if reference_rewards.ndim != 3 or reference_rewards.shape[1] < 2:
        raise ValueError(
            f"reference rewards need shape (prompts, 2 or more samples, dimensions), "
            f"not {reference_rewards.shape}"
        )
    if not np.isfinite(reference_rewards).all():
        raise ValueError("a reward of the reference samples is not a finite number")
    scaled_G_P_n = np.einsum("gm,pnm->gpn", grid, reference_rewards) / beta
    mean_P_m = reference_rewards.mean(axis=1)
    return Ruler(
        optimal_value=beta * jackknifed_log_mean_exp(scaled_G_P_n),
        reference_value=grid @ mean_P_m.T,
        reference_reward=mean_P_m.mean(axis=0),
        optimal_reward=None,
        optimal_kl=None,
        exact=False,
    )


def jackknifed_log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log E[exp(v)] from n samples v on the last axis: n·θ − (n − 1)·mean of the leave-one-out θ's.

    The jackknife (Quenouille 1956) removes the 1/n term of the plain estimate's bias. Never below
    the plain estimate, and so never below the mean of v (log-mean-exp is concave in the sample).
    """
    n = values.shape[-1]
    top = values.max(axis=-1, keepdims=True)
    weight = np.exp(values - top)
    total = weight.sum(axis=-1, keepdims=True)
    # The largest term's own complement is summed afresh: total − 1 would cancel if it dominates.
    largest = values.argmax(axis=-1)[..., None]
    others = values.copy()
    np.put_along_axis(others, largest, -np.inf, axis=-1)
    rest = np.logaddexp.reduce(others, axis=-1, keepdims=True)
    left_out = top + np.log(np.maximum(total - weight, 1.0 / n))  # ≥ 1 but for the largest
    np.put_along_axis(left_out, largest, rest, axis=-1)
    left_out -= np.log(n - 1)
    plain = (top + np.log(total))[..., 0] - np.log(n)
    return n * plain - (n - 1) * left_out.mean(axis=-1)
