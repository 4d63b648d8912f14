"""The preference vector λ of one model: what it may be, and where it lives."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Preference = Tensor | Mapping[str, float] | Sequence[float] | Sequence[Sequence[float]]
"""λ as a caller may give it: by dimension name (the unnamed are 0), or (m,), or (B, m)."""

TOLERANCE = 1e-4  # how far the weights of one λ may sum from 1


def as_preference(preference: Preference, dimensions: Sequence[str]) -> Tensor:
    """λ as a float32 copy on the simplex, (m,) or (B, m), in the order of `dimensions`."""
    names = list(dimensions)
    if isinstance(preference, Mapping):
        if unknown := sorted(set(preference) - set(names)):
            raise ValueError(
                f"Unknown preference dimension(s) {unknown}: this adapter knows {names}."
            )
        preference = [preference.get(name, 0.0) for name in names]
    value = torch.as_tensor(preference, dtype=torch.float32).detach().clone()
    if value.dim() not in (1, 2) or value.shape[-1] != len(names):
        raise ValueError(
            f"A preference vector has {len(names)} weights, one for each of {names}, or that many "
            f"in each row of the batch; got shape {tuple(value.shape)}."
        )
    # NaN fails the first comparison and infinity the second, so both need no check of their own.
    sums_to_one = (value.sum(-1) - 1).abs() <= TOLERANCE
    if not ((value >= 0).all() & sums_to_one.all()):
        raise ValueError(
            "The weights of a preference vector must be finite, not negative and sum to 1 "
            f"(within {TOLERANCE}); got {value.tolist()}."
        )
    return value


class PreferenceState:
    """The current λ of one model, shared by all its adapter layers.

    A plain object, not a buffer: λ is no weight, is never saved and never trained. One state serves
    one call at a time: many preferences at once are the rows of one batch, not threads.

    A λ is given for the dimensions of the adapter that is active at that moment, and remembers
    them: where an adapter of other dimensions is switched to, the old λ is refused, not reused.
    """

    def __init__(self) -> None:
        self.adapters: dict[str, list[str]] = {}  # the dimensions of each adapter; layers keep it
        self.active: list[str] = []  # names of the active adapters; layers keep it
        self.value: Tensor | None = None  # (m,) or (B, m)
        self.value_dimensions: list[str] = []  # what `value` was given for
        self.merged_layers = 0

    @property
    def dimensions(self) -> list[str]:
        """The dimensions of the active adapter; those of several must be the same."""
        found = {name: self.adapters[name] for name in self.active if name in self.adapters}
        if not found:
            raise ValueError(
                f"No Panacea adapter is active (this model has {sorted(self.adapters)}): call "
                "set_adapter first."
            )
        first, *others = found.values()
        if any(other != first for other in others):
            raise ValueError(
                f"The active adapters have different dimensions ({found}), so that no preference "
                "vector fits them all: activate one of them."
            )
        return first

    def check_dimensions(self, dimensions: Sequence[str]) -> None:
        """Refuse to hand an adapter of `dimensions` a λ that was given for others."""
        if self.value is not None and self.value_dimensions != dimensions:
            raise ValueError(
                f"The preference vector was given for {self.value_dimensions}, but this adapter's "
                f"dimensions are {dimensions}: call set_preference after set_adapter."
            )

    def parse(self, preference: Preference | None) -> Tensor | None:
        """`preference` checked, None staying None; refused while a λ is merged into the weights."""
        if self.merged_layers:
            raise ValueError(
                "The adapter is merged into the base weights at one preference vector: call "
                "unmerge_adapter() before choosing another."
            )
        return None if preference is None else as_preference(preference, self.dimensions)

    def set(self, preference: Preference | None) -> None:
        """Replace the current λ; None clears it."""
        self.value = self.parse(preference)
        self.value_dimensions = [] if self.value is None else self.dimensions

    @contextmanager
    def using(self, value: Tensor | None, dimensions: list[str] | None = None) -> Iterator[None]:
        """A context in which the current λ is `value` (as `parse` returns it).

        `dimensions`: what it was given for; default: the dimensions of the active adapter.
        """
        if dimensions is None:
            dimensions = [] if value is None else self.dimensions
        previous = self.value, self.value_dimensions
        self.value, self.value_dimensions = value, dimensions
        try:
            yield
        finally:
            self.value, self.value_dimensions = previous

    def single(self) -> Tensor:
        """λ (m,), for what needs one for the whole model: a merge, a weight delta."""
        if self.value is None or self.value.dim() != 1:
            raise ValueError(
                "Weights can only be merged at one preference vector: call set_preference with a "
                "single λ, not with one for each row, first."
            )
        return self.value

    def for_input(self, x: Tensor) -> Tensor:
        """λ shaped to broadcast over the features of x (B, …, in): (m,) or (B, 1, …, m)."""
        value = self.value
        if value is None:
            raise ValueError(
                "The adapter is enabled but has no preference vector: call set_preference(λ), pass "
                "preference=λ to the model, or disable the adapter."
            )
        if value.device != x.device:
            self.value = value = value.to(x.device)
        if value.dim() == 1:
            return value
        if value.shape[0] != x.shape[0]:
            raise ValueError(
                f"The preference has {value.shape[0]} rows but the batch has {x.shape[0]}: give "
                "one row for each row of the batch, or a single λ for all."
            )
        return value.view(value.shape[0], *[1] * (x.dim() - 2), value.shape[1])
