"""How a dropped file changes its place: whole or not at all, and never over another file."""

import errno
import os
import re
import shutil
from pathlib import Path

from panacea_lib.data.fingerprint import file_hash
from panacea_lib.disk import fsync

_LONGEST = 100  # characters of a name that is made safe


def move(source: Path, target: Path) -> None:
    """Rename; between two file systems copy aside, rename, and only then delete the source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for left in target.parent.glob(".*.partial"):  # by a process that died here
            left.unlink()
        aside = target.with_name(f".{target.name}.partial")
        shutil.copyfile(source, aside)
        fsync(aside)
        aside.rename(target)
        fsync(target.parent)
        source.unlink()


def set_aside(path: Path, folder: Path, reason: str, digest: str | None, good_name: bool) -> Path:
    """Move a file to `folder` with the reason beside it, NAME.error.txt; gives its new place.

    It keeps its name if that is a good one and free; digest: its SHA-256, None where it was not
    read. The reason is written first: a file that is there always has one.
    """
    folder.mkdir(exist_ok=True)
    name = path.name if good_name else _safe(path.name)
    target, number = folder / name, 1
    while os.path.lexists(target) and not _is(target, digest):
        number += 1
        target = folder / f"{number}-{name}"
    aside = folder / f".{target.name}.error.txt.partial"
    aside.unlink(missing_ok=True)
    aside.write_text(reason + "\n", encoding="utf-8", errors="backslashreplace")
    aside.rename(folder / f"{target.name}.error.txt")
    path.rename(target)
    return target


def _is(path: Path, digest: str | None) -> bool:
    """Whether a file that lies there already has the same content."""
    return path.is_file() and not path.is_symlink() and file_hash(path) == digest


def _safe(name: str) -> str:
    """A name of letters, digits, - and dots, without one in front."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).lstrip(".-")[:_LONGEST] or "file"
