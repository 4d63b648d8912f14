"""Pictures as PNG bytes under 100 KB, for the Dagster UI and the report; on white, always."""

import io
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LIMIT = 100_000  # bytes: Dagster keeps a metadata entry in its own database
_OPTIMUM, _REFERENCE = "optimum", "reference"
# Okabe and Ito's colours, told apart by the colour-blind; each method has a marker of its own too.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_MARKERS = "osD^vP"


def front_picture(front_rewards: pa.Table, dimensions: list[str], judge: str) -> bytes:
    """Mean rewards of every method by one judge (columns of facts.front_rewards). Two dimensions:
    one panel; more: a panel for every pair of them. The exact optimum, where it is known, is grey.
    """
    fronts = _fronts(front_rewards, dimensions, judge)
    size = max(len(dimensions) - 1, 1)
    width = 7.0 if size == 1 else min(2.7 * size + 1.5, 15.0)
    figure = _figure(width, width * (0.72 if size == 1 else 0.95))
    looks = _looks(list(fronts))
    for i, j in combinations(range(len(dimensions)), 2):
        # A lower triangle: a column per first dimension, a row per second one.
        axes = figure.add_subplot(size, size, (j - 1) * size + i + 1)
        for method, front in fronts.items():
            flat = [part[:, [i, j]] for part in front[1:]]
            _draw_front(axes, method, looks[method], *flat, size=size)
        if size == 1:
            _label_points(axes, *next(iter(fronts.values()))[:2])
        if size == 1 or j == size:
            axes.set_xlabel(dimensions[i])
        if size == 1 or i == 0:
            axes.set_ylabel(dimensions[j])
        _plain_axes(axes, small=size > 2)
    first = figure.axes[0]
    handles, labels = first.get_legend_handles_labels()
    if size == 1:
        first.legend(handles, labels, frameon=False, fontsize=9)
        first.set_title(f"mean rewards over the grid of λ, judge: {judge}", fontsize=10, loc="left")
    else:
        figure.legend(handles, labels, frameon=False, loc="upper right", title=f"judge: {judge}")
    return _png(figure)


def _fronts(
    table: pa.Table, dimensions: list[str], judge: str
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """method -> (weight, reward, low, high), each (G, m); the optimum first, so that it lies
    below and carries the labels, and the reference policy last."""
    rows = [row for row in table.to_pylist() if row["judge"] == judge]
    if not rows:
        raise ValueError(f"no front judged by {judge!r} to draw")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    methods.sort(key=lambda name: (name != _OPTIMUM, name == _REFERENCE))
    fronts = {}
    for method in methods:
        own = {(row["point"], row["dimension"]): row for row in rows if row["method"] == method}
        points = sorted({point for point, _ in own})
        fronts[method] = tuple(
            np.array([[own[point, name][column] for name in dimensions] for point in points])
            for column in ("weight", "reward", "reward_low", "reward_high")
        )
    return fronts


def _looks(methods: list[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker per learned method, the same whether or not there is an optimum."""
    learned = [name for name in methods if name not in (_OPTIMUM, _REFERENCE)]
    looks = {name: (_COLOURS[k % 6], _MARKERS[k % 6]) for k, name in enumerate(learned)}
    return {_OPTIMUM: ("0.78", "o"), _REFERENCE: ("0.15", "X"), **looks}


def _draw_front(
    axes: "Axes",
    method: str,
    look: tuple[str, str],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    size: int,
) -> None:
    """One method's points (G, 2), joined in the order of λ where that is a curve: size = 1."""
    colour, marker = look
    joined = size == 1
    label = "exact optimum" if method == _OPTIMUM else method
    if method == _OPTIMUM:
        marker, width = ("", 7) if joined else (marker, 0)
        axes.plot(*mean.T, marker=marker, color=colour, linewidth=width, label=label, zorder=1)
        return
    if method == _REFERENCE:
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


def curves_picture(training_curves: pa.Table, metric: str = "loss") -> bytes:
    """One metric against the optimiser step, a panel per method and a line per dimension (columns
    of facts.training_curves); a faint line as logged, a strong one averaged over a twentieth."""
    rows = [row for row in training_curves.to_pylist() if row["metric"] == metric]
    if not rows:
        raise ValueError(f"no curve of the metric {metric!r} to draw")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = min(len(methods), 3)
    panels = -(-len(methods) // columns)
    figure = _figure(3.6 * columns + 0.6, 2.8 * panels)
    for place, method in enumerate(methods, start=1):
        axes = figure.add_subplot(panels, columns, place)
        own = [row for row in rows if row["method"] == method]
        for number, name in enumerate(dict.fromkeys(row["dimension"] for row in own)):
            points = sorted((row["step"], row["value"]) for row in own if row["dimension"] == name)
            steps, values = np.array(points).T
            colour = "0.15" if name == "" else _COLOURS[number % 6]
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            smooth = _running_mean(values, max(len(values) // 20, 1))
            axes.plot(steps, smooth, color=colour, linewidth=1.5, label=name or "all dimensions")
        axes.set_title(method, fontsize=10, loc="left")
        axes.set_xlabel("step")
        axes.set_ylabel(metric if (place - 1) % columns == 0 else "")
        axes.legend(frameon=False, fontsize=8)
        _plain_axes(axes)
    return _png(figure)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values, of as many as there are at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def reward_models_picture(reward_models: list[dict[str, Any]]) -> bytes:
    """Held-out accuracy beside what always naming the commoner side gets, and beside the best that
    the label noise allows (rows of the view reward_model_quality)."""
    figure = _figure(5.6, 0.8 + 0.55 * len(reward_models))
    axes = figure.add_subplot()
    for y, row in enumerate(reward_models):
        accuracy = row["accuracy"]
        # A label that begins with an underscore stays out of the legend.
        label = "accuracy" if y == 0 else "_"
        axes.barh(y, accuracy, height=0.5, color=_COLOURS[0], label=label)
        if row.get("accuracy_low") is not None and row.get("accuracy_high") is not None:
            ends = [row["accuracy_low"], row["accuracy_high"]]
            axes.plot(ends, [y, y], color="0.15", linewidth=1.2)
        for column, colour, label in (
            ("majority", _COLOURS[1], "majority"),
            ("best_possible", _COLOURS[2], "best possible"),
        ):
            if row.get(column) is not None:
                label = label if y == 0 else "_"
                axes.vlines(row[column], y - 0.35, y + 0.35, color=colour, linewidth=2, label=label)
    axes.set_yticks(range(len(reward_models)), [row["dimension"] for row in reward_models])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of held-out pairs ordered rightly")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    _plain_axes(axes)
    return _png(figure)


def _figure(width: float, height: float) -> "Figure":
    """A figure of its own: no pyplot, so no state is shared between threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain_axes(axes: "Axes", small: bool = False) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=6 if small else 8)


def _png(figure: "Figure") -> bytes:
    """The figure as a PNG of at most 64 colours, coarser where it would otherwise be too large."""
    from PIL import Image

    size = _LIMIT
    for dpi in (110, 80, 60, 45):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        figure.set_layout_engine("none")  # the first layout, in inches, serves all sizes
        # A palette is a third of the bytes; no dither, which would speckle the white.
        image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        image.save(packed, format="png", optimize=True)
        size = packed.tell()
        if size < _LIMIT:
            return packed.getvalue()
    raise ValueError(f"a picture of {size} bytes; the limit is {_LIMIT}")
