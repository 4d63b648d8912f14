"""How sure a figure is."""

from math import erfc, sqrt

Z_95 = 1.96


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * (share * (1 - share) / n + Z_95**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)  # rounding may step outside


def normal_cdf(z: float) -> float:
    """P(Z ≤ z) of a standard normal Z."""
    return erfc(-z / sqrt(2)) / 2
