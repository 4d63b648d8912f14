"""What the warehouse, the artifact store and published folders need of a disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def fsync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of `target`; one process at a time.

    A reader sees the old folder, for a moment none, then the new one: never half of either. After
    an exception inside, the old one stays; what a killed process left is cleared by the next.
    """
    partial, old = (target.with_name(f".{target.name}.{end}") for end in ("partial", "old"))
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in [partial, *partial.rglob("*")]:
        fsync(path)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
