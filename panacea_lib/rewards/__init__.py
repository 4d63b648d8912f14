"""Reward models: one per dimension, trained by TRL, scored in batches, put on one scale."""

from panacea_lib.rewards.scale import RewardScale

__all__ = ["RewardScale"]
