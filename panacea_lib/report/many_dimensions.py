"""Fronts of more than two dimensions: over the triangle of λ, and as profiles."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import OPTIMUM, new_figure, plain_axes, png
from panacea_lib.report.fronts import fronts_of, optimum_name, share_reached, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])  # of λ = e₁, e₂, e₃


def triangle_picture(
    front_rewards: pa.Table,
    front_values: pa.Table,
    dimensions: list[str],
    judge: str,
    method: str = "panacea",
) -> bytes:
    """Three dimensions: what one method gets at each evaluated λ of the triangle. A triangle per
    dimension with its mean reward, on one scale of colours, and one with the share of the
    attainable improvement. Nothing is drawn between the points that were evaluated."""
    from matplotlib.colors import Normalize

    front = fronts_of(front_rewards, dimensions, judge)[method]
    share = share_reached(values_of(front_values, method, judge))
    places = front.weight @ _CORNERS
    rewards = Normalize(front.reward.min(), front.reward.max())
    figure = new_figure(9.0, 8.2)
    figure.suptitle(f"{method} over the triangle of λ, judge: {judge}", fontsize=11)
    for k, name in enumerate(dimensions):
        axes = figure.add_subplot(2, 2, k + 1)
        title = f"mean {name}"
        _draw_triangle(axes, places, front.reward[:, k], rewards, title, dimensions)
    axes = figure.add_subplot(2, 2, 4)
    title = "share of the attainable improvement"
    _draw_triangle(axes, places, share, Normalize(0, 1), title, dimensions)
    return png(figure)


def _draw_triangle(
    axes: "Axes",
    places: np.ndarray,
    figures: np.ndarray,
    scale: "Normalize",
    title: str,
    dimensions: list[str],
) -> None:
    """One figure (G,) at each place (G, 2), as a coloured disc that tells it."""
    axes.fill(*_CORNERS.T, facecolor="0.97", edgecolor="0.8", linewidth=0.8, zorder=1)
    axes.scatter(*places.T, c=figures, norm=scale, cmap="viridis", s=520, zorder=2)
    for (x, y), figure in zip(places, figures, strict=True):
        ink = "white" if scale(figure) < 0.6 else "black"
        axes.text(x, y, f"{figure:.2f}", color=ink, fontsize=7, ha="center", va="center")
    for corner, name, (dx, dy) in zip(
        _CORNERS, dimensions, ((0, -0.15), (0, -0.15), (0, 0.12)), strict=True
    ):
        axes.text(
            corner[0] + dx, corner[1] + dy, f"all {name}", fontsize=8, color="0.3", ha="center"
        )
    axes.set_title(title, fontsize=10)
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.05), aspect="equal")
    axes.axis("off")


def profiles_picture(
    front_rewards: pa.Table, dimensions: list[str], judge: str, method: str = "panacea"
) -> bytes:
    """Any number of dimensions: a line per λ over the mean rewards on all of them, coloured by
    the dimension with the largest weight; the optimum's lines, where there is one, are grey."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    fronts = fronts_of(front_rewards, dimensions, judge)
    front, across = fronts[method], np.arange(len(dimensions))
    colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
    figure = new_figure(max(6.5, 1.05 * len(dimensions) + 2.5), 4.6)
    axes = figure.add_subplot()
    handles = []
    if OPTIMUM in fronts:
        axes.plot(across, fronts[OPTIMUM].reward.T, color="0.8", linewidth=1.2, zorder=1)
        handles.append(Line2D([], [], color="0.8", linewidth=2, label=optimum_name(judge)))
    heaviest = front.weight.argmax(axis=1)
    for point, line in zip(heaviest, front.reward, strict=True):
        axes.plot(across, line, color=colours[point], linewidth=0.9, zorder=2)
    handles += [
        Line2D([], [], color=colours[k], label=f"most weight: {name}")
        for k, name in enumerate(dimensions)
    ]
    axes.set_xticks(across, dimensions, rotation=25, ha="right")
    axes.set_ylabel("mean reward")
    axes.set_title(f"{method}: a line per λ, judge: {judge}", fontsize=10, loc="left")
    figure.legend(handles=handles, frameon=False, fontsize=8, loc="outside right upper")
    plain_axes(axes)
    return png(figure)
