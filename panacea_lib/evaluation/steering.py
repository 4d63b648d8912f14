"""Does the preference vector do what it says? Figures of a policy's points in the order of λ."""

import numpy as np


def rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 along the last axis; ties share their mean rank."""
    below = (values[..., None, :] < values[..., :, None]).sum(axis=-1)
    same = (values[..., None, :] == values[..., :, None]).sum(axis=-1)
    return below + (same - 1) / 2


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis (Spearman 1904); 0 where one of them does not vary, as
    it then says nothing of the other."""
    a, b = (rank(x) - (x.shape[-1] - 1) / 2 for x in (a, b))
    norm = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.divide((a * b).sum(axis=-1), norm, out=np.zeros_like(norm), where=norm > 0)


def steerability(grid: np.ndarray, reward_W_g_m: np.ndarray) -> np.ndarray:
    """Spearman correlation of λᵢ and the mean reward rᵢ over the grid (G, m), shape (W, m): 1 where
    more weight always buys more reward. A policy with one point for all λ has 0."""
    reward = np.broadcast_to(reward_W_g_m, (len(reward_W_g_m), *grid.shape))
    weight = np.broadcast_to(grid.T, (len(reward), *grid.T.shape))
    return spearman(weight, reward.transpose(0, 2, 1))


def cross_values(grid: np.ndarray, charged_W_g_m: np.ndarray) -> np.ndarray:
    """V_λ(π_λ') = λ·J(λ') of every λ and every point, shape (W, G, g), J = E[r] − β·KL."""
    return np.einsum("gm,whm->wgh", grid, charged_W_g_m)


def regret(cross_W_G_g: np.ndarray) -> np.ndarray:
    """Mean over λ of max_λ' V_λ(π_λ') − V_λ(π_λ), shape (W,): what a user loses who asks for the
    preference that she has. Never below 0, and noise in the points raises it."""
    points = cross_W_G_g.shape[2]
    own = cross_W_G_g[:, :, 0] if points == 1 else np.einsum("wgg->wg", cross_W_G_g)
    return (cross_W_G_g.max(axis=2) - own).mean(axis=1)


def neighbours(grid: np.ndarray) -> np.ndarray | None:
    """Pairs of neighbouring points of a lattice of preference vectors, shape (K, 2); None for a
    grid that is none (m ≥ 4)."""
    if grid.shape[1] > 3:
        return None
    distance = np.abs(grid[:, None] - grid[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    pairs = np.argwhere(np.isclose(distance, distance.min()))
    return pairs[pairs[:, 0] < pairs[:, 1]]


def evenness(steps: np.ndarray) -> float | None:
    """(Σd)² / (K·Σd²) of the lengths d of K steps (Jain, Chiu and Hawe 1984): 1 where all are
    equal, 1/K where one step is the whole way. None where nothing moves."""
    longest = steps.max(initial=0.0)
    if longest == 0:
        return None
    steps = steps / longest  # squares of tiny steps might vanish
    return float(steps.sum() ** 2 / (len(steps) * (steps**2).sum()))
