"""Gold against proxy: does the true reward follow where the learned one was pushed?"""

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import OPTIMUM, REFERENCE, looks, new_figure, plain_axes, png
from panacea_lib.report.fronts import fronts_of, values_of


def judges_picture(front_rewards: pa.Table, front_values: pa.Table, dimensions: list[str]) -> bytes:
    """Mean λ·r by both judges against KL, a panel per method that has a KL, a pair of marks per λ.

    Filled is gold, hollow is proxy. A hollow mark far above its filled one means that the policy
    has found the reward models' mistakes. ValueError where one of the judges has scored nothing.
    """
    gold, proxy = (fronts_of(front_rewards, dimensions, judge) for judge in ("gold", "proxy"))
    methods = [
        name
        for name in gold
        if name in proxy
        and name not in (OPTIMUM, REFERENCE)
        and values_of(front_values, name, "gold")
    ]
    look = looks(list(gold))
    columns = min(len(methods), 3)
    panels = -(-len(methods) // columns)
    figure = new_figure(3.2 * columns + 0.8, 2.9 * panels + 0.3)
    first = None
    for place, method in enumerate(methods, start=1):
        axes = figure.add_subplot(panels, columns, place, sharex=first, sharey=first)
        first = first or axes
        kl = values_of(front_values, method, "gold")["kl"]
        got = [(f[method].weight * f[method].reward).sum(axis=1) for f in (gold, proxy)]
        colour, marker = look[method]
        axes.vlines(kl, np.minimum(*got), np.maximum(*got), color=colour, alpha=0.35, linewidth=1)
        for figures, face, label in zip(got, (colour, "white"), ("gold", "proxy"), strict=True):
            axes.plot(
                kl, figures, marker, markersize=4.5, color=colour, markerfacecolor=face, label=label
            )
        axes.set_title(method, fontsize=10, loc="left")
        axes.set_xlabel("KL from the reference policy, nats", fontsize=8)
        axes.set_ylabel("mean λ·r" if (place - 1) % columns == 0 else "")
        axes.legend(frameon=False, fontsize=8)
        plain_axes(axes)
    return png(figure)
