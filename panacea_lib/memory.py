"""Out of memory, said in one sentence with what to do about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from panacea_lib.errors import NotEnoughMemoryError

TRAINING_REMEDY = (
    "lower training.batch_size and raise training.accumulation by the same factor, set "
    "training.gradient_checkpointing: true, or load the base model with quantization: nf4"
)
"""What makes a policy's training need less."""

# torch raises a plain RuntimeError where it is the host's memory, or cuBLAS, that has run out.
_ALLOCATORS = re.compile(
    r"can't allocate memory|not enough memory|cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


@contextmanager
def memory_shortage_told(what: str, remedy: str) -> Iterator[None]:
    """Within, running out of memory raises NotEnoughMemoryError: `what` had not enough, and the
    remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_shortage(error):
            raise
        said = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise NotEnoughMemoryError(f"{what} ran out of memory: {remedy}. ({said})") from error


def _is_shortage(error: Exception) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return _ALLOCATORS.search(str(error)) is not None
