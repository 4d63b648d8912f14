"""Pictures of the reward models: accuracy beside what is trivial, calibration, correlations."""

from typing import Any

import numpy as np

from panacea_lib.report.drawing import COLOURS, new_figure, plain_axes, png

_MARKS = (
    ("majority", COLOURS[1], "majority"),
    ("length_only", COLOURS[3], "length only"),
    ("best_possible", COLOURS[2], "best possible"),
)


def reward_models_picture(reward_models: list[dict[str, Any]]) -> bytes:
    """Held-out accuracy beside what always naming the commoner side gets, what length alone gets,
    and the best that the label noise allows (rows of the view reward_model_quality)."""
    figure = new_figure(5.6, 0.8 + 0.55 * len(reward_models))
    axes = figure.add_subplot()
    for y, row in enumerate(reward_models):
        if row["accuracy"] is None:
            continue  # no held-out pair has a winner
        axes.barh(y, row["accuracy"], height=0.5, color=COLOURS[0], label=_once(axes, "accuracy"))
        if row.get("accuracy_low") is not None and row.get("accuracy_high") is not None:
            ends = [row["accuracy_low"], row["accuracy_high"]]
            axes.plot(ends, [y, y], color="0.15", linewidth=1.2)
        for column, colour, label in _MARKS:
            if row.get(column) is not None:
                told = _once(axes, label)
                axes.vlines(row[column], y - 0.35, y + 0.35, color=colour, linewidth=2, label=told)
    axes.set_yticks(range(len(reward_models)), [row["dimension"] for row in reward_models])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of held-out pairs ordered rightly")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=4)
    plain_axes(axes)
    return png(figure)


def _once(axes: Any, label: str) -> str:
    """The label where the legend has none of its kind; an underscore keeps others out of it."""
    return "_" if label in axes.get_legend_handles_labels()[1] else label


def calibration_picture(bins: list[dict[str, Any]]) -> bytes:
    """Observed against predicted preference, a panel per dimension (rows of the view
    reward_calibration): as the rewards are, and over a temperature. On the diagonal a reward
    difference means what Bradley-Terry says."""
    dimensions = list(dict.fromkeys(row["dimension"] for row in bins))
    if not dimensions:
        raise ValueError("no held-out pair to show the calibration of")
    columns = min(len(dimensions), 5)
    panels = -(-len(dimensions) // columns)
    figure = new_figure(2.3 * columns + 0.6, 2.5 * panels + 0.4)
    for place, name in enumerate(dimensions, start=1):
        axes = figure.add_subplot(panels, columns, place)
        axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=0.8)
        for scaled, colour, label in (
            (False, COLOURS[0], "as it is"),
            (True, COLOURS[1], "over a temperature"),
        ):
            own = [r for r in bins if r["dimension"] == name and r["scaled"] == scaled]
            told = label if place == 1 else "_"
            x, y = ([row[key] for row in own] for key in ("predicted", "observed"))
            axes.vlines(
                x, [r["low"] for r in own], [r["high"] for r in own], color=colour, alpha=0.4
            )
            axes.plot(x, y, "o-", color=colour, markersize=3, linewidth=1, label=told)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(0.28, 1.02)
        axes.set_xlabel("predicted", fontsize=8)
        axes.set_ylabel("observed" if (place - 1) % columns == 0 else "", fontsize=8)
        plain_axes(axes)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    return png(figure)


def correlations_picture(correlations: list[dict[str, Any]], dimensions: list[str]) -> bytes:
    """The matrix of the dimensions' correlations (rows of the view reward_correlations)."""
    m = len(dimensions)
    matrix = np.eye(m)
    for row in correlations:
        i, j = (dimensions.index(row[name]) for name in ("dimension_a", "dimension_b"))
        matrix[i, j] = matrix[j, i] = np.nan if row["correlation"] is None else row["correlation"]
    side = 1.6 + 0.55 * m
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    for i in range(m):
        for j in range(m):
            colour = "white" if abs(matrix[i, j]) > 0.6 else "0.15"
            axes.text(
                j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xticks(range(m), dimensions, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(m), dimensions, fontsize=8)
    figure.colorbar(image, shrink=0.8)
    return png(figure)
