"""Which pictures an evaluation has: by its number of dimensions, and by who judged it."""

from typing import NamedTuple

import pyarrow as pa

from panacea_lib.report.front_picture import front_picture
from panacea_lib.report.fronts import charged, judges_of
from panacea_lib.report.judges_picture import judges_picture
from panacea_lib.report.many_dimensions import profiles_picture, triangle_picture


class Picture(NamedTuple):
    """A PNG, a short name for it, and a sentence that says what it shows."""

    name: str
    caption: str
    png: bytes


def evaluation_pictures(
    front_rewards: pa.Table, front_values: pa.Table, dimensions: list[str], beta: float
) -> list[Picture]:
    """The pictures of one evaluation (all rows of both tables under its key), by its best judge."""
    judges = judges_of(front_rewards)
    judge, m = judges[0], len(dimensions)
    between = "" if m == 2 else ", for every pair of dimensions"
    found = [
        Picture(
            "front",
            f"Fronts: mean rewards over the grid of λ{between}",
            front_picture(front_rewards, dimensions, judge),
        )
    ]
    if m <= 3:  # of many pairs of dimensions one matrix is enough
        caption = (
            f"The same with drift paid for, J = E[r] − β·KL{between}: here no policy gets beyond "
            "the optimum for its λ"
        )
        paid = charged(front_rewards, front_values, beta)
        found.append(Picture("charged_front", caption, front_picture(paid, dimensions, judge)))
    if m == 3:
        caption = (
            "Panacea over the triangle of λ: the mean reward on each dimension, and the share of "
            "the attainable improvement, at every evaluated λ"
        )
        drawn = triangle_picture(front_rewards, front_values, dimensions, judge)
        found.append(Picture("triangle", caption, drawn))
    if m > 3:
        caption = "Panacea's mean rewards on all dimensions, a line per λ"
        drawn = profiles_picture(front_rewards, dimensions, judge)
        found.append(Picture("profiles", caption, drawn))
    if {"gold", "proxy"} <= set(judges):
        caption = (
            "Gold against proxy reward over KL, a pair of marks per λ: where the learned reward "
            "(hollow) leaves the true one (filled) behind, the policy exploits mistakes"
        )
        drawn = judges_picture(front_rewards, front_values, dimensions)
        found.append(Picture("judges", caption, drawn))
    return found
