"""Training in several processes: how many there are, and which rows are whose."""

import os

from panacea_lib.errors import InputError


def process_count() -> int:
    """As the launcher says, `accelerate launch` or torch's own; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """This process' place among them, as the launcher says; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    """Whether this is the one that writes, and tells."""
    return process_rank() == 0


def rows_per_process(batch_size: int) -> int:
    """Each process' share of a batch; InputError where it cannot be shared equally."""
    processes = process_count()
    if batch_size % processes:
        raise InputError(
            f"training.batch_size: {batch_size} rows cannot be shared equally by {processes} "
            "processes; change one of them"
        )
    return batch_size // processes


def meet() -> None:
    """Wait until all processes are here; at once where there is one."""
    if process_count() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
