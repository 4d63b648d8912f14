"""`--prefer harmlessness=.8`: numbers by dimension as people write them, and written for them."""

import math
from collections.abc import Iterator

from panacea_lib.errors import InputError
from panacea_lib.problem_errors import nearest

_EXAMPLE = "write weights as in --prefer harmlessness=.8,helpfulness=.2"
_DIGITS = 6  # of a weight; no further from 1 in all than `parse_preference` lets pass


def parse_preference(text: str, dimensions: list[str]) -> dict[str, float]:
    """Weights of all dimensions, in their order; those not named share what is left equally.

    InputError: not NAME=WEIGHT, an unknown or repeated dimension, a weight that is negative or no
    number, or weights that do not sum to 1.
    """
    weights: dict[str, float] = {}
    for name, value in _named(text, "--prefer", "WEIGHT", dimensions, _EXAMPLE):
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


def preference_text(preference: dict[str, float]) -> str:
    """λ for `--prefer`, every weight to six digits and their sum exactly 1."""
    unit = 10**_DIGITS
    scaled = {name: weight * unit for name, weight in preference.items()}
    whole = {name: math.floor(weight) for name, weight in scaled.items()}
    by_remainder = sorted(scaled, key=lambda name: whole[name] - scaled[name])
    for name in by_remainder[: unit - sum(whole.values())]:
        whole[name] += 1
    return ",".join(f"{name}={count / unit:.{_DIGITS}g}" for name, count in whole.items())


def parse_floors(texts: list[str], dimensions: list[str]) -> dict[str, float]:
    """`--at-least harmlessness=0.5`, given once or more: the least mean reward by dimension.

    InputError: not NAME=REWARD, an unknown or repeated dimension, or no finite number.
    """
    example = "write a floor as in --at-least harmlessness=0.5"
    floors: dict[str, float] = {}
    for text in texts:
        for name, value in _named(text, "--at-least", "REWARD", dimensions, example):
            if name in floors:
                raise InputError(f"--at-least: {name} has two floors; give the higher one only")
            floors[name] = _number(value)
            if not math.isfinite(floors[name]):
                raise InputError(
                    f"--at-least: {value!r} is no reward for {name}; it is a number in units of "
                    "the base model's spread, e.g. 0.5"
                )
    return floors


def check_dimension(option: str, name: str, dimensions: list[str]) -> str:
    """The name; InputError where there is no such dimension."""
    if name not in dimensions:
        raise InputError(f"{option}: no dimension is named {name!r} ({nearest(name, dimensions)})")
    return name


def _named(
    text: str, option: str, what: str, dimensions: list[str], example: str
) -> Iterator[tuple[str, str]]:
    """Dimension and what is written for it, for every NAME=… between commas."""
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise InputError(f"{option}: {part.strip()!r} is not NAME={what}; {example}")
        yield check_dimension(option, name, dimensions), value


def _weight(name: str, text: str) -> float:
    weight = _number(text)
    if not math.isfinite(weight) or weight < 0:
        raise InputError(f"--prefer: {text!r} is no weight for {name}; it is a number from 0 to 1")
    return weight


def _number(text: str) -> float:
    """NaN where the text is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
