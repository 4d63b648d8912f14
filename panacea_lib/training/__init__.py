"""Training methods: thin subclasses of TRL's trainers, and `train(config, out_dir)`."""

from panacea_lib.training.config import TrainConfig
from panacea_lib.training.policies import train_policy
from panacea_lib.training.train import train

__all__ = ["TrainConfig", "train", "train_policy"]
