"""What a Panacea adapter is made of, saved beside its weights."""

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig, PeftType, TaskType

MIN_DIMENSIONS, MAX_DIMENSIONS = 2, 10


@dataclass
class PanaceaConfig(PeftConfig):
    """Configuration of a [`PanaceaModel`] (Panacea, arXiv 2402.02030).

    Args:
        dimensions (`list[str]`):
            The names of the m preference dimensions, in the order of the preference vector λ; 2 to
            10, all different.
        r (`int`):
            k of the paper: how many singular values are learned. The rank of the adapter is r + m.
        alpha (`float`):
            The adapter's output is multiplied by alpha / r.
        target_modules (`set[str] | list[str] | str`, *optional*):
            The linear layers to adapt: names (whole, or the end after a dot), or a regular
            expression, or "all-linear". Default: q, k, v, o, gate, up and down projections;
            in a model that lacks one of these names, "all-linear".
        exclude_modules (`set[str] | list[str] | str`, *optional*):
            The layers not to adapt, named in the same way.
        init_std (`float`):
            Standard deviation of the normal distribution U and V start from; the singular values
            and the scale of λ start at 0, so the new adapter changes nothing.
    """

    dimensions: list[str] = field(
        default_factory=list,
        metadata={"help": "Names of the preference dimensions, in the order of λ."},
    )
    r: int = field(default=8, metadata={"help": "Number of learned singular values."})
    alpha: float = field(default=16.0, metadata={"help": "The output is scaled by alpha / r."})
    target_modules: set[str] | list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers to adapt; see the class."}
    )
    exclude_modules: set[str] | list[str] | str | None = field(
        default=None, metadata={"help": "Layers not to adapt; see the class."}
    )
    init_std: float = field(default=0.02, metadata={"help": "Standard deviation U, V start with."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("PANACEA")
        if self.task_type is None:
            # PEFT's wrapper for an unnamed task goes past the tuner: `preference=λ` would be lost.
            self.task_type = TaskType.CAUSAL_LM
        if not MIN_DIMENSIONS <= len(self.dimensions) <= MAX_DIMENSIONS:
            raise ValueError(
                f"`dimensions` must name {MIN_DIMENSIONS} to {MAX_DIMENSIONS} preference "
                f"dimensions; got {self.dimensions}."
            )
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError(f"`dimensions` must all differ; got {self.dimensions}.")
        if self.r < 1:
            raise ValueError(f"`r` must be at least 1; got {self.r}.")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)

    def to_dict(self) -> dict[str, Any]:
        """As PEFT's, with sets sorted: the saved file's bytes (and hash) are the same every run."""
        return {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in super().to_dict().items()
        }
