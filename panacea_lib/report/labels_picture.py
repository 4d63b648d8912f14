"""Labels at a glance: who labelled how much of each dimension, and which dimensions conflict."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from panacea_lib.report.drawing import COLOURS, new_figure, plain_axes, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAILED = "failed"


def labels_picture(
    used: list[dict[str, Any]], conflicts: list[dict[str, Any]], dimensions: list[str]
) -> bytes:
    """Two panels: coverage by source, and conflicts.

    used: dimension, source, share (of all pairs, for which this source gave the label; source
    "failed": where none could be had); conflicts: dimension_a, dimension_b, disagreement in [0, 1]
    (None where no pair is labelled on both).
    """
    m = len(dimensions)
    figure = new_figure(9.4, max(2.6, 0.42 * m + 1.6))
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    _draw_coverage(left, used, dimensions)
    _draw_conflicts(right, conflicts, dimensions)
    return png(figure)


def _draw_coverage(axes: "Axes", used: list[dict[str, Any]], dimensions: list[str]) -> None:
    share: dict[str, dict[str, float]] = defaultdict(dict)
    for row in used:
        share[row["source"]][row["dimension"]] = row["share"]
    sources = sorted(share, key=lambda source: (source == FAILED, source))
    done = np.zeros(len(dimensions))
    for number, source in enumerate(sources):
        width = np.array([share[source].get(name, 0.0) for name in dimensions])
        colour = "0.8" if source == FAILED else COLOURS[number % len(COLOURS)]
        axes.barh(range(len(dimensions)), width, left=done, color=colour, label=source, height=0.6)
        done += width
    axes.set_yticks(range(len(dimensions)), dimensions)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of all pairs that have a label, by its source", fontsize=8)
    axes.set_title("coverage", fontsize=10, loc="left")
    if sources:
        axes.legend(
            frameon=False,
            fontsize=8,
            ncols=min(len(sources), 5),
            loc="lower right",
            bbox_to_anchor=(1, 1),
        )
    plain_axes(axes)


def _draw_conflicts(axes: "Axes", conflicts: list[dict[str, Any]], dimensions: list[str]) -> None:
    place = {name: i for i, name in enumerate(dimensions)}
    matrix = np.full((len(dimensions), len(dimensions)), np.nan)
    for row in conflicts:
        if row["disagreement"] is not None:
            a, b = place[row["dimension_a"]], place[row["dimension_b"]]
            matrix[a, b] = matrix[b, a] = row["disagreement"]
    axes.imshow(matrix, cmap="Reds", vmin=0, vmax=max(0.5, np.nanmax(matrix, initial=0.5)))
    for a, b in np.argwhere(np.isfinite(matrix)):
        ink = "white" if matrix[a, b] > 0.35 else "black"
        axes.text(b, a, f"{matrix[a, b]:.0%}", ha="center", va="center", fontsize=7, color=ink)
    names = range(len(dimensions)), dimensions
    axes.set_xticks(*names, rotation=35, ha="right", fontsize=7)
    axes.set_yticks(*names, fontsize=7)
    axes.spines[:].set_visible(False)
    axes.set_title("how often two dimensions disagree", fontsize=10, loc="left")


def position_bias_picture(bias: list[dict[str, Any]]) -> bytes:
    """How often each judge prefers what it is shown first, against the even half (rows of the
    view position_bias)."""
    figure = new_figure(6.0, 0.9 + 0.45 * len(bias))
    axes = figure.add_subplot()
    for y, row in enumerate(bias):
        axes.barh(y, row["first_preferred"], height=0.5, color=COLOURS[0])
        told = f"same verdict in both orders: {row['consistent']:.0%} of {row['pairs']:,}"
        axes.text(0.02, y, told, va="center", fontsize=7, color="white")
    axes.axvline(0.5, color=COLOURS[1], linewidth=1.5)
    names = [f"{row['dimension']}, {row['annotator']}" for row in bias]
    axes.set_yticks(range(len(bias)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("how often the response shown first wins; the line: no bias", fontsize=8)
    plain_axes(axes)
    return png(figure)
