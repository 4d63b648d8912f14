"""How every picture looks: colours, axes, and a PNG small enough to be kept anywhere."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Bytes of a PNG. Dagster keeps a metadata entry in its own database, in base64, which makes four
# characters of three bytes: an entry stays under 100 KB.
LIMIT = 74_000
OPTIMUM, REFERENCE = "optimum", "reference"
# Okabe and Ito's colours, told apart by the colour-blind, and two more; each method has a marker
# of its own too.
COLOURS = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#7A7A00",
]  # fmt: skip
_MARKERS = "osD^vP<*"


def looks(methods: list[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker per method, the same whether or not there is an optimum."""
    others = [name for name in methods if name not in (OPTIMUM, REFERENCE)]
    n = len(COLOURS)
    own = {name: (COLOURS[k % n], _MARKERS[k % n]) for k, name in enumerate(others)}
    return {OPTIMUM: ("0.78", "o"), REFERENCE: ("0.15", "X"), **own}


def new_figure(width: float, height: float) -> "Figure":
    """A figure of its own, in inches: no pyplot, so no state is shared between threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: "Axes", small: bool = False) -> None:
    """Two spines, a faint grid below everything, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=6 if small else 8)


def png(figure: "Figure") -> bytes:
    """The figure as a PNG of at most 64 colours, coarser where it would otherwise be too large.

    ValueError where even the coarsest is larger than the limit.
    """
    from PIL import Image

    size = LIMIT
    for dpi in (110, 80, 60, 45):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        figure.set_layout_engine("none")  # the first layout, in inches, serves all sizes
        # A palette is a third of the bytes; no dither, which would speckle the white.
        image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        image.save(packed, format="png", optimize=True)
        size = packed.tell()
        if size < LIMIT:
            return packed.getvalue()
    raise ValueError(f"a picture of {size} bytes; the limit is {LIMIT}")
