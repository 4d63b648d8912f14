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
    """

    def __init__(self, dimensions: Sequence[str]) -> None:
        self.dimensions = list(dimensions)
        self.value: Tensor | None = None  # (m,) or (B, m)
        self.merged_layers = 0

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

    @contextmanager
    def using(self, value: Tensor | None) -> Iterator[None]:
        """A context in which the current λ is `value` (as `parse` returns it)."""
        previous, self.value = self.value, value
        try:
            yield
        finally:
            self.value = previous

    def single(self) -> Tensor:
        """λ (m,), for what needs one for the whole model: a merge, a weight delta."""
        if self.value is None or self.value.dim() != 1:
            raise ValueError(
                "Weights can only be merged at one preference vector: call set_preference with a "
                f"single λ of {len(self.dimensions)} weights first."
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
