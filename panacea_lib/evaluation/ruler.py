"""The ruler: what the reference policy has, and what the optimum could have, at every λ.

V_ref(λ) = λ·E_ref[r] and V*(λ) = β·log E_ref[exp(λ·r/β)], per prompt x and then averaged over x
(the closed form of KL-regularised reward maximisation: DPO, arXiv 2305.18290, eq. 4).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from panacea_lib.world.exact import Enumeration

LEAST_EFFECTIVE = 5.0
"""Effective samples a prompt below which a point of the estimated front is refused: the error of a
self-normalised mean is about one part in as many (benchmarks/ruler.md has it measured)."""


@dataclass(frozen=True)
class Ruler:
    """Values on G preference vectors and P prompts.

    optimal_value, reference_value: (G, P). reference_reward: (m,), the reference policy's mean.
    optimal_reward (G, P, m) and optimal_kl (G, P), nats, are those of π*_λ. samples: those of the
    reference policy per prompt that it rests on, 0 where it is exact. effective: (G,) how many of
    them the importance weights leave at each λ, the harmonic mean over prompts; None where exact.
    """

    optimal_value: np.ndarray
    reference_value: np.ndarray
    reference_reward: np.ndarray
    optimal_reward: np.ndarray
    optimal_kl: np.ndarray
    samples: int = 0
    effective: np.ndarray | None = None

    @property
    def exact(self) -> bool:
        """Whether nothing is estimated."""
        return self.effective is None

    @property
    def known(self) -> np.ndarray:
        """(G,) where the optimum's rewards and KL may be shown; its value is estimated anyway."""
        if self.effective is None:
            return np.ones(len(self.optimal_value), dtype=bool)
        return self.effective >= LEAST_EFFECTIVE

    @property
    def samples_needed(self) -> int:
        """About how many reference samples a prompt would do at every λ: weights that leave one
        in c samples leave one in c, at best, of more."""
        if self.effective is None:
            return 0
        return int(np.ceil(self.samples * LEAST_EFFECTIVE / self.effective.min()))


def exact_ruler(enumeration: "Enumeration", grid: np.ndarray, beta: float) -> Ruler:
    """The ruler of the embedded world: nothing is estimated. grid: (G, m)."""
    optimum = enumeration.optimum(grid, beta)
    reference_P_m = enumeration.reference_reward()
    return Ruler(
        optimal_value=optimum.value,
        reference_value=grid @ reference_P_m.T,
        reference_reward=reference_P_m.mean(axis=0),
        optimal_reward=optimum.reward,
        optimal_kl=optimum.kl,
    )


def estimated_ruler(reference_rewards: np.ndarray, grid: np.ndarray, beta: float) -> Ruler:
    """The ruler of a real model, from n ≥ 2 reference samples a prompt. reference_rewards:
    (P, n, m), normalised; grid: (G, m).

    V* is β times a jackknifed log-mean-exp. It cannot see answers better than the best of its n
    samples, so it is biased low and **value ratios measured with it read high**, the more so the
    smaller n and β are; in the embedded world the exact ruler says by how much. The optimum's
    rewards are the samples' means under self-normalised weights ∝ exp(λ·r/β), and its KL follows
    from the value; how many samples the weights leave is (Σw)² / Σw² (Kish 1965).
    """
    if reference_rewards.ndim != 3 or reference_rewards.shape[1] < 2:
        raise ValueError(
            f"reference rewards need shape (prompts, 2 or more samples, dimensions), "
            f"not {reference_rewards.shape}"
        )
    if not np.isfinite(reference_rewards).all():
        raise ValueError("a reward of the reference samples is not a finite number")
    scaled_G_P_n = np.einsum("gm,pnm->gpn", grid, reference_rewards) / beta
    weight_G_P_n = np.exp(scaled_G_P_n - scaled_G_P_n.max(axis=2, keepdims=True))
    weight_G_P_n /= weight_G_P_n.sum(axis=2, keepdims=True)
    reward_G_P_m = np.einsum("gpn,pnm->gpm", weight_G_P_n, reference_rewards)
    value_G_P = beta * jackknifed_log_mean_exp(scaled_G_P_n)
    mean_P_m = reference_rewards.mean(axis=1)
    return Ruler(
        optimal_value=value_G_P,
        reference_value=grid @ mean_P_m.T,
        reference_reward=mean_P_m.mean(axis=0),
        optimal_reward=reward_G_P_m,
        optimal_kl=(np.einsum("gm,gpm->gp", grid, reward_G_P_m) - value_G_P) / beta,
        samples=reference_rewards.shape[1],
        effective=1 / (weight_G_P_n**2).sum(axis=2).mean(axis=1),
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
