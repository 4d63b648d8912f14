"""One scale for all rewards: constants fitted once on reference samples, then stored."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RewardScale:
    """reward = (raw − mean) / scale, per dimension; both have shape (m,)."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, prompt_ids: list[str], raw: np.ndarray) -> "RewardScale":
        """From raw scores (N, m) of reference samples and the prompt of each.

        The scale is the spread *within* prompts (root of the mean variance): a score that only
        tells prompts apart cannot be preferred by any policy, and Bradley-Terry cannot learn it.
        Raises ValueError for a dimension that never varies within a prompt.
        """
        _, group = np.unique(prompt_ids, return_inverse=True)
        counts = np.bincount(group)
        sums = np.stack([np.bincount(group, column) for column in raw.T], axis=1)
        deviation = raw - (sums / counts[:, None])[group]
        degrees = (counts - 1).sum()
        scale = np.sqrt((deviation**2).sum(axis=0) / max(degrees, 1))
        if not (np.isfinite(scale).all() and (scale > 1e-8).all()):
            raise ValueError(
                f"rewards do not vary within prompts (spread {scale.tolist()}): draw more "
                "reference samples per prompt, or check the reward models"
            )
        return cls(raw.mean(axis=0), scale)

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Normalised rewards of raw scores (N, m)."""
        return (raw - self.mean) / self.scale

    def to_dict(self) -> dict[str, list[float]]:
        """For a JSON column."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> "RewardScale":
        """What `to_dict` wrote."""
        return cls(np.array(values["mean"]), np.array(values["scale"]))
