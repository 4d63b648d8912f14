"""What a policy answered on the grid, and its averages per point and prompt."""

from dataclasses import dataclass

import numpy as np

EVERY_POINT = -1
"""The `point` of samples that serve every λ: those of a policy that does not listen to it."""


@dataclass(frozen=True)
class PolicySamples:
    """N answers of one policy to P held-out prompts, at temperature 1, untruncated.

    point: (N,) index into the grid, or EVERY_POINT throughout (the reference policy).
    prompt: (N,) 0 … P − 1, the same prompts in the same order for all policies and the ruler.
    reward: (N, m), normalised. log_ratio: (N,) log π_λ − log π_ref of the whole response, nats.
    outside: (N,) whether the answer is ⊥, that is, none the embedded world's grammar knows;
    None where there is no such thing.
    """

    method: str
    point: np.ndarray
    prompt: np.ndarray
    reward: np.ndarray
    log_ratio: np.ndarray
    outside: np.ndarray | None = None


def reference_samples(prompt: np.ndarray, reward: np.ndarray) -> PolicySamples:
    """Samples of the reference policy, whose log ratio is 0; drawn once, they serve every λ."""
    every = np.full(len(prompt), EVERY_POINT)
    return PolicySamples("reference", every, prompt, reward, np.zeros(len(prompt)))


@dataclass(frozen=True)
class PromptMeans:
    """Averages over the samples of each of g points and P prompts; g is 1 if λ is ignored.

    reward: (g, P, m); log_ratio: (g, P); outside: (g, P) or None; samples: (g,) answers that each
    point rests on; answers: all of them, which is less than the sum where points share them.
    """

    method: str
    reward: np.ndarray
    log_ratio: np.ndarray
    outside: np.ndarray | None
    samples: np.ndarray
    answers: int


def prompt_means(samples: PolicySamples, points: int, prompts: int, m: int) -> PromptMeans:
    """Average the samples of each point and prompt, so that prompts weigh alike however many
    samples each has. ValueError if a sample is not a number, or a point or prompt has none."""
    reward, log_ratio = np.asarray(samples.reward), np.asarray(samples.log_ratio)
    point, prompt = np.asarray(samples.point), np.asarray(samples.prompt)
    _check(samples.method, point, prompt, reward, log_ratio, points, prompts, m)
    if (point == EVERY_POINT).all():
        point, points = np.zeros_like(point), 1
    cell = point * prompts + prompt
    count = np.bincount(cell, minlength=points * prompts)
    if not count.all():
        empty = int(np.argmin(count))
        raise ValueError(
            f"{samples.method}: no sample at point {empty // prompts} for prompt {empty % prompts}"
        )

    def average(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(cell, weights=values, minlength=points * prompts)
        return (sums / count).reshape(points, prompts)

    return PromptMeans(
        method=samples.method,
        reward=np.stack([average(reward[:, i]) for i in range(m)], axis=2),
        log_ratio=average(log_ratio),
        outside=None if samples.outside is None else average(np.asarray(samples.outside, float)),
        samples=count.reshape(points, prompts).sum(axis=1),
        answers=len(point),
    )


def _check(
    method: str,
    point: np.ndarray,
    prompt: np.ndarray,
    reward: np.ndarray,
    log_ratio: np.ndarray,
    points: int,
    prompts: int,
    m: int,
) -> None:
    """Refuse what would be averaged into nonsense."""
    n = len(point)
    if n == 0:
        raise ValueError(f"{method}: no samples")
    if prompt.shape != (n,) or log_ratio.shape != (n,) or reward.shape != (n, m):
        raise ValueError(
            f"{method}: {n} points, but prompt {prompt.shape}, log_ratio {log_ratio.shape} and "
            f"reward {reward.shape} where ({n},), ({n},) and ({n}, {m}) are needed"
        )
    for name, values in (("reward", reward), ("log_ratio", log_ratio)):
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"{method}: the {name} of sample {row} is not a finite number")
    if prompt.min() < 0 or prompt.max() >= prompts:
        raise ValueError(f"{method}: prompts are 0 to {prompts - 1}, not up to {prompt.max()}")
    everywhere = (point == EVERY_POINT).all()
    if not everywhere and (point.min() < 0 or point.max() >= points):
        raise ValueError(f"{method}: points are 0 to {points - 1}, or all of them EVERY_POINT")
