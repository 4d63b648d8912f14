"""Stored weights as NumPy arrays: a check need not import torch for a look at numbers."""

from pathlib import Path

import numpy as np
from safetensors import deserialize

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "<u1"}


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file, flat; KeyError for a type that has no place here."""
    return {name: _flat(info) for name, info in deserialize(file.read_bytes())}


def _flat(info: dict) -> np.ndarray:
    if info["dtype"] == "BF16":  # NumPy knows none: they are the upper halves of float32
        upper = np.frombuffer(info["data"], "<u2").astype("<u4") << 16
        return upper.view("<f4")
    return np.frombuffer(info["data"], _TYPES[info["dtype"]])
