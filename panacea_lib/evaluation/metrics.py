"""Figures of one front: n points of m rewards, larger is better. The geometry is moocore's.

Raw fronts have the points E[r]; KL-charged fronts Jᵢ = E[rᵢ] − β·KL, where π*_λ is Pareto-optimal
and drifting from the reference does not pay.
"""

import moocore
import numpy as np

REFERENCE_MARGIN = 3.0
"""Normalised units (standard deviations of the reference policy's rewards) between the reference
policy and the hypervolume's reference point: π*_λ moves a reward by about √(2·KL) of them, and a
KL charge comes on top, so fewer would cut off the ends of good fronts."""

EXACT_DIMENSIONS = 7  # above, an exact hypervolume takes seconds
_DIRECTIONS = 2**18


def reference_point(reference_reward: np.ndarray) -> np.ndarray:
    """The point (m,) that hypervolumes are measured from: one for all policies, raw or charged,
    a fixed margin below the reference policy's mean reward (m,)."""
    return np.asarray(reference_reward, dtype=float) - REFERENCE_MARGIN


def check_front(points: np.ndarray) -> np.ndarray:
    """The points (n, m) as floats; ValueError if there are none or one is not a finite number."""
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"a front has shape (points, dimensions), not {points.shape}")
    if not np.isfinite(points).all():
        row = int(np.argwhere(~np.isfinite(points))[0][0])
        raise ValueError(f"point {row} of the front is not finite: {points[row].tolist()}")
    return points


def nondominated(points: np.ndarray) -> np.ndarray:
    """Mask (n,) of the points that no other equals or beats everywhere; of equal points, one."""
    return moocore.is_nondominated(check_front(points), maximise=True)


def hypervolume(points: np.ndarray, reference: np.ndarray, directions: int = _DIRECTIONS) -> float:
    """Volume between the front and the reference point (m,), larger is better (Zitzler and
    Thiele 1998). Points that are not above the reference point in every dimension add nothing.

    Exact up to 7 dimensions; above, an integral over that many fixed directions (moocore's
    Rphi-FWE+, deterministic), whose error `hypervolume_error` states.
    """
    points = check_front(points)
    if points.shape[1] <= EXACT_DIMENSIONS:
        return float(moocore.hypervolume(points, ref=reference, maximise=True))
    return float(moocore.hv_approx(points, ref=reference, maximise=True, nsamples=directions))


def hypervolume_error(points: np.ndarray, reference: np.ndarray) -> float:
    """Absolute error of `hypervolume`: 0 where it is exact, else its distance from the estimate
    with a quarter of the directions, which is the error of the coarser of the two."""
    points = check_front(points)
    if points.shape[1] <= EXACT_DIMENSIONS:
        return 0.0
    coarse = hypervolume(points, reference, _DIRECTIONS // 4)
    return abs(hypervolume(points, reference) - coarse)


def points_outside(points: np.ndarray, reference: np.ndarray) -> int:
    """How many points the hypervolume does not see, as they are not above its reference point."""
    return int((check_front(points) <= reference).any(axis=1).sum())


def igd_plus(points: np.ndarray, reference_front: np.ndarray) -> float:
    """Mean over the reference front (n', m) of the distance to the nearest point, counting only
    where the point is worse (IGD+: Ishibuchi et al., EMO 2015); 0 where nothing is missed."""
    return float(moocore.igd_plus(check_front(points), ref=reference_front, maximise=True))


def inner_product(grid: np.ndarray, points: np.ndarray) -> float:
    """Mean over λ of λ·E[r]; `points` (G, m) belong to the rows of `grid` (G, m)."""
    return float((grid * check_front(points)).sum(axis=1).mean())


def sparsity(points: np.ndarray) -> float | None:
    """Mean squared gap between neighbours on the front, summed over objectives; lower is denser.

    Σ_i Σ_k (p̃ᵢ(k) − p̃ᵢ(k + 1))² / (n − 1), p̃ᵢ the n non-dominated points' i-th rewards in
    order (PGMORL: Xu et al., ICML 2020, section 2.2). With two objectives it is the mean squared
    distance between neighbours. None for one point: it has no neighbour.
    """
    front = points[nondominated(points)]
    if len(front) < 2:
        return None
    gaps = np.diff(np.sort(front, axis=0), axis=0)
    return float((gaps**2).sum() / (len(front) - 1))


def spacing(points: np.ndarray) -> float | None:
    """Unevenness of the front: the sample standard deviation of each non-dominated point's L1
    distance to its nearest neighbour (Schott 1995); 0 is even. None for one point."""
    front = points[nondominated(points)]
    if len(front) < 2:
        return None
    distance = np.abs(front[:, None] - front[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return float(distance.min(axis=1).std(ddof=1))
