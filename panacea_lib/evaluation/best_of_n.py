"""Best-of-n: what a user gets who trains nothing, draws n answers and keeps the best by λ·r."""

from math import comb

import numpy as np

from panacea_lib.evaluation.samples import PromptMeans

BEST_OF = 16


def best_of_n(
    selecting: np.ndarray, judged: np.ndarray, grid: np.ndarray, n: int = BEST_OF
) -> PromptMeans:
    """The mean reward of the best of n reference answers, over all draws of n from N ≥ n of them.

    selecting, judged: (P, N, m) rewards of the same answers by whoever selects and whoever judges;
    grid: (G, m). The i-th worst of N is the best of n with probability C(i − 1, n − 1) / C(N, n),
    so nothing is drawn. log_ratio is log n − (n − 1)/n, the upper bound of the KL divergence
    (Beirami et al., arXiv 2401.01879), so that its value is a lower bound.
    """
    prompts, drawn, m = judged.shape
    if not 1 <= n <= drawn:
        raise ValueError(f"the best of {n} answers needs as many, not {drawn}")
    chance = np.array([comb(i, n - 1) for i in range(drawn)], dtype=object) / comb(drawn, n)
    order_G_P_N = np.einsum("gm,pnm->gpn", grid, selecting).argsort(axis=2, kind="stable")
    reward = np.empty((len(grid), prompts, m))
    for g, order in enumerate(order_G_P_N):
        ranked = np.take_along_axis(judged, order[:, :, None], axis=1)
        reward[g] = np.einsum("n,pnm->pm", chance.astype(float), ranked)
    return PromptMeans(
        method=f"best_of_{n}",
        reward=reward,
        log_ratio=np.full((len(grid), prompts), np.log(n) - (n - 1) / n),
        outside=None,
        samples=np.full(len(grid), prompts * drawn),
        answers=prompts * drawn,
    )
