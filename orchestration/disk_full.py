"""A full disk, told in one sentence: every library has its own words for it."""

import shutil

from panacea_lib.workspace import Workspace

DISK_FULL = "DiskFullError"  # the name of such a failure, whatever was raised
_SIGNS = (
    "No space left on device",  # Python, safetensors, pyarrow and DuckDB quote the system
    "Disk quota exceeded",
    "database or disk is full",  # SQLite, which holds Dagster's runs
    "basic_ios::clear: iostream error",  # torch.save, which does not say why a write failed,
    "unexpected pos",  # and then says this: all that comes from a training in another process
)
_SQLITE = "disk I/O error"  # may have other causes: believed only where the disk is full
_FULL = 2**20  # bytes left


def disk_full_message(trace: str) -> str | None:
    """What to tell a person of an error, given as text with its causes; None for another error."""
    root = Workspace.current().root
    signs = _SIGNS
    if root.exists() and shutil.disk_usage(root).free < _FULL:
        signs += (_SQLITE,)
    lines = (line.strip() for line in trace.splitlines())
    told = next((line for line in lines if any(sign in line for sign in signs)), None)
    if told is None:
        return None
    return (
        f"the disk is full ({told}): free space where that was to be written, mostly under "
        f"{root / 'var'}, then run the same command again; it goes on from what is complete"
    )
