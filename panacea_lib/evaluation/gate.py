"""The gate before a champion is replaced: better beyond chance, and no dimension below its floor.

Pure: figures in, a verdict with its reason out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from panacea_lib.evaluation.bootstrap import Figure, average, figure
from panacea_lib.evaluation.samples import PromptMeans


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger takes the champion's place, and why or why not, in words."""

    promoted: bool
    reason: str


def levels(means: PromptMeans, dimensions: list[str], weights: np.ndarray) -> dict[str, Figure]:
    """Dimension → its level: the policy's mean reward over prompts and over all λ of the grid.

    λ that give the dimension no weight count too, as somebody may ask for them. weights: (W, P),
    see `panacea_lib.evaluation.bootstrap`.
    """
    by_row = average(weights, means.reward).mean(axis=1)  # (W, m)
    return {name: figure(by_row[:, i]) for i, name in enumerate(dimensions)}


def decide(
    metric: str,
    difference: Figure,
    level: Mapping[str, Figure],
    floors: Mapping[str, float],
    rival: str = "the champion",
) -> Verdict:
    """The verdict on a challenger.

    `difference` is challenger less rival by the metric, under the same resamples of prompts; where
    there is no champion the rival is the base model. A floor holds where the lower end of the
    level's interval does not lie below it: what is let through must have been shown, as with the
    difference. No interval shows nothing.
    """
    problems = _not_better(metric, difference, rival)
    problems += [
        _below(name, level[name], floor)
        for name, floor in floors.items()
        if (low := level[name].low) is None or low < floor
    ]
    if problems:
        return Verdict(False, "; ".join(problems))
    held = f"; every floor holds ({', '.join(floors)})" if floors else ""
    return Verdict(True, f"{metric} is better than {rival}'s by {_told(difference)}{held}")


def _not_better(metric: str, difference: Figure, rival: str) -> list[str]:
    if difference.low is not None and difference.low > 0:
        return []
    if difference.high is not None and difference.high < 0:
        return [f"{metric} is worse than {rival}'s by {_told(difference)}"]
    return [f"{metric} is not better than {rival}'s beyond chance: {_told(difference)}"]


def _below(name: str, level: Figure, floor: float) -> str:
    return f"{name} is {_told(level)} over all λ, which is not safely at its floor of {floor:g}"


def _told(number: Figure) -> str:
    if number.value is None:
        return "(no figure)"
    if number.low is None or number.high is None:
        return f"{number.value:+.3f} (no interval)"
    return f"{number.value:+.3f} ({number.low:+.3f} to {number.high:+.3f})"
