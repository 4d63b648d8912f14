"""Reward models: one per dimension, trained by TRL, scored in batches, put on one scale.

`scale` is light; `train` and `score` import torch, so name them in full.
"""
