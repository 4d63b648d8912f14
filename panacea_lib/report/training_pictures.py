"""Pictures of training: losses by step; on white, always."""

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import COLOURS, new_figure, plain_axes, png


def curves_picture(training_curves: pa.Table, metric: str = "loss") -> bytes:
    """One metric against the optimiser step, a panel per method and a line per dimension (columns
    of facts.training_curves); a faint line as logged, a strong one averaged over a twentieth."""
    rows = [row for row in training_curves.to_pylist() if row["metric"] == metric]
    if not rows:
        raise ValueError(f"no curve of the metric {metric!r} to draw")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = min(len(methods), 3)
    panels = -(-len(methods) // columns)
    figure = new_figure(3.6 * columns + 0.6, 2.8 * panels)
    for place, method in enumerate(methods, start=1):
        axes = figure.add_subplot(panels, columns, place)
        own = [row for row in rows if row["method"] == method]
        for number, name in enumerate(dict.fromkeys(row["dimension"] for row in own)):
            points = sorted((row["step"], row["value"]) for row in own if row["dimension"] == name)
            steps, values = np.array(points).T
            colour = "0.15" if name == "" else COLOURS[number % len(COLOURS)]
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            smooth = _running_mean(values, max(len(values) // 20, 1))
            axes.plot(steps, smooth, color=colour, linewidth=1.5, label=name or "all dimensions")
        axes.set_title(method, fontsize=10, loc="left")
        axes.set_xlabel("step")
        axes.set_ylabel(metric if (place - 1) % columns == 0 else "")
        axes.legend(frameon=False, fontsize=8)
        plain_axes(axes)
    return png(figure)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the last `width` values, of as many as there are at the start."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)
