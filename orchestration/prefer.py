"""`--prefer harmlessness=.8`: a preference vector as people write it."""

import math

from panacea_lib.errors import InputError
from panacea_lib.problem_errors import nearest

_EXAMPLE = "write weights as in --prefer harmlessness=.8,helpfulness=.2"


def parse_preference(text: str, dimensions: list[str]) -> dict[str, float]:
    """Weights of all dimensions, in their order; those not named share what is left equally.

    InputError: not NAME=WEIGHT, an unknown or repeated dimension, a weight that is negative or no
    number, or weights that do not sum to 1.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise InputError(f"--prefer: {part.strip()!r} is not NAME=WEIGHT; {_EXAMPLE}")
        if name not in dimensions:
            raise InputError(
                f"--prefer: no dimension is named {name!r} ({nearest(name, dimensions)})"
            )
        if name in weights:
            raise InputError(f"--prefer: {name} stands twice in {text!r}; {_EXAMPLE}")
        weights[name] = _weight(name, value)
    total = math.fsum(weights.values())
    others = [name for name in dimensions if name not in weights]
    if total > 1 + 1e-6 or (not others and total < 1 - 1e-6):
        raise InputError(
            f"--prefer: the weights in {text!r} sum to {total:g}, not to 1; {_EXAMPLE}"
        )
    rest = max(0.0, 1 - total)
    return {name: weights.get(name, rest / max(len(others), 1)) for name in dimensions}


def _weight(name: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight) or weight < 0:
        raise InputError(f"--prefer: {text!r} is no weight for {name}; it is a number from 0 to 1")
    return weight
