"""One holder at a time, across processes: an OS lock on a file that names who holds it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

HANDOVER = 60.0
"""Seconds that one waits for a training whose run was killed to end, which takes it a few."""


class LeaseHeldError(TimeoutError):
    """Somebody else held it for longer than one wanted to wait; `holder` says who."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


@contextmanager
def hold(path: Path, holder: str, timeout: float) -> Iterator[None]:
    """Hold the OS lock on `path`, which names its holder while it is held.

    The lock dies with its process, so a killed holder blocks nobody. The file stays, empty.
    Raises LeaseHeldError, naming the holder, after `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        held = _describe_holder(path)
        raise LeaseHeldError(f"{path}: waited {timeout:g} s; {held}", held) from None
    try:
        told = {"pid": os.getpid(), "host": socket.gethostname(), "holder": holder}
        since = datetime.now(UTC).isoformat(timespec="seconds")
        path.write_text(json.dumps({**told, "since": since}))
        yield
    finally:
        path.write_text("")
        lock.release()


def lease_of(folder: Path) -> Path:
    """The file that whoever works in `folder` locks; it lies beside it, and outlives it."""
    return folder.with_name(f"{folder.name}.lock")


def _describe_holder(lock: Path) -> str:
    text = lock.read_text()
    if not text:  # taken a moment ago, or just let go
        return "another process holds it"
    held = json.loads(text)
    where = f"pid {held['pid']} on {held['host']}"
    return f"held by {held['holder']!r} ({where}) since {held['since']}"
