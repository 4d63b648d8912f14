"""The fronts themselves: mean rewards on two dimensions, or on every pair of more."""

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import OPTIMUM, REFERENCE, looks, new_figure, plain_axes, png
from panacea_lib.report.fronts import fronts_of, optimum_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def front_picture(front_rewards: pa.Table, dimensions: list[str], judge: str) -> bytes:
    """Mean rewards of every method by one judge (columns of facts.front_rewards). Two dimensions:
    one panel; more: a panel for every pair of them. The optimum, where there is one, is grey.
    """
    fronts = fronts_of(front_rewards, dimensions, judge)
    size = max(len(dimensions) - 1, 1)
    width = 7.0 if size == 1 else min(2.7 * size + 1.5, 15.0)
    figure = new_figure(width, width * (0.72 if size == 1 else 0.95))
    look = looks(list(fronts))
    for i, j in combinations(range(len(dimensions)), 2):
        # A lower triangle: a column per first dimension, a row per second one.
        axes = figure.add_subplot(size, size, (j - 1) * size + i + 1)
        for method, front in fronts.items():
            flat = [part[:, [i, j]] for part in front[1:]]
            label = optimum_name(judge) if method == OPTIMUM else method
            _draw_front(axes, method, label, look[method], *flat, size=size)
        if size == 1:
            _label_points(axes, *next(iter(fronts.values()))[:2])
        if size == 1 or j == size:
            axes.set_xlabel(dimensions[i])
        if size == 1 or i == 0:
            axes.set_ylabel(dimensions[j])
        plain_axes(axes, small=size > 2)
    first = figure.axes[0]
    handles, labels = first.get_legend_handles_labels()
    if size == 1:
        first.legend(handles, labels, frameon=False, fontsize=9)
        first.set_title(f"mean rewards over the grid of λ, judge: {judge}", fontsize=10, loc="left")
    else:
        figure.legend(handles, labels, frameon=False, loc="upper right", title=f"judge: {judge}")
    return png(figure)


def _draw_front(
    axes: "Axes",
    method: str,
    label: str,
    look: tuple[str, str],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    size: int,
) -> None:
    """One method's points (G, 2), joined in the order of λ where that is a curve: size = 1."""
    colour, marker = look
    joined = size == 1
    if method == OPTIMUM:
        marker, width = ("", 7) if joined else (marker, 0)
        axes.plot(*mean.T, marker=marker, color=colour, linewidth=width, label=label, zorder=1)
        return
    if method == REFERENCE:
        axes.plot(*mean[0], marker, color=colour, markersize=8, label=label, zorder=4)
        return
    axes.plot(
        *mean.T, marker=marker, color=colour, markersize=4 if size < 4 else 2.5,
        linewidth=1.2 if joined else 0, label=label, zorder=3,
    )  # fmt: skip
    if joined:
        x_error, y_error = (np.abs([mean - low, high - mean])[:, :, k] for k in (0, 1))
        axes.errorbar(
            *mean.T, xerr=x_error, yerr=y_error, fmt="none", ecolor=colour, alpha=0.3,
            linewidth=0.8, zorder=2,
        )  # fmt: skip


def _label_points(axes: "Axes", weight: np.ndarray, mean: np.ndarray) -> None:
    """Write λ beside the ends and the middle of one curve: all methods share the grid."""
    for point in sorted({0, len(mean) // 2, len(mean) - 1}):
        text = "λ = (" + ", ".join(f"{value:.2g}" for value in weight[point]) + ")"
        axes.annotate(
            text, mean[point], xytext=(9, 9), textcoords="offset points", fontsize=8, color="0.3"
        )
