"""Training methods: thin subclasses of TRL's trainers, and `train(config, out_dir)`."""

from panacea_lib.training.policies import train_policy
from panacea_lib.training.train import TrainConfig, TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train", "train_policy"]
