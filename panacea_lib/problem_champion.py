"""A problem's section on its champion: what a retrained policy must show to take its place."""

from typing import Literal

from pydantic import Field

from panacea_lib.problem_types import DimensionName, Strict


class ChampionGate(Strict):
    """When a retrained policy is promoted: better by `metric`, and no dimension below its floor."""

    metric: Literal["value_ratio", "expected_utility", "charged_hypervolume"] = Field(
        default="value_ratio",
        description="what it must be better by, beyond the paired 95 % interval; all three charge "
        "for drift",
    )
    floors: dict[DimensionName, float] = Field(
        default={},
        description="per dimension: what its mean reward over all λ must not fall below, at the "
        "lower end of its interval; 0 is the reference policy's mean, 1 its spread",
    )
