"""The process that asks: it outlives the job that started it by as much as answers take.

    python -m panacea_lib.labelling.judge_process

The first line of stdin is the job (`JudgeJob` as JSON); after it stdin is a lifeline. When it
closes, because the job ended or was killed, nothing new is sent, the answers in flight are waited
for and committed, and the process ends. So killing a job costs no answer; the next job waits for
the cache's lock until this one is through. The judge's key comes in the environment. On stdout goes
one JSON object a line: {"progress": …}, and if it ends early {"error": …, "input": true | false}.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from panacea_lib.errors import InputError
from panacea_lib.labelling.judge_asking import Asking, Progress, as_line
from panacea_lib.labelling.judge_cache import JudgeCache
from panacea_lib.labelling.judge_client import StoppedError, read_key
from panacea_lib.labelling.judge_job import JudgeError, JudgeJob
from panacea_lib.stop_wish import StopWish

STOPPED = 3
"""The exit status of a process that was stopped from outside."""


class Lifeline:
    """Whether the job that wants the answers is still there."""

    def __init__(self) -> None:
        self._wish = StopWish()
        self._wish.watch_lifeline()
        self._wish.hear_signals()

    def is_gone(self) -> bool:
        """Once True, it stays so."""
        return self._wish.is_wanted()

    def tell(self, message: dict[str, Any]) -> None:
        """Send one line to the job; it may be gone."""
        try:
            os.write(1, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self._wish.make()


def main() -> int:
    """Read a job from stdin and do it; 0, 1 after an error that was told, or `STOPPED`."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    line = _first_line()
    if not line.endswith(b"\n"):
        return STOPPED  # killed before it could say what it wants
    job = JudgeJob.model_validate_json(line)
    lifeline = Lifeline()
    try:
        key = read_key(job.judge)
        with _alone(job.cache, lifeline), JudgeCache(job.cache) as cache:
            asking = Asking(
                job,
                cache,
                key,
                lifeline.is_gone,
                lambda progress: lifeline.tell({"progress": as_line(progress)}),
            )
            progress = asyncio.run(asking.run())
            lifeline.tell({"progress": as_line(progress)})
    except (InputError, JudgeError) as error:
        lifeline.tell({"error": str(error), "input": isinstance(error, InputError)})
        return 1
    except StoppedError:
        return STOPPED
    return 0


def _first_line() -> bytes:
    """Unbuffered, so that the lifeline's thread misses nothing."""
    line = b""
    while not line.endswith(b"\n") and (chunk := os.read(0, 65536)):
        line += chunk
    return line


@contextmanager
def _alone(cache: Path, lifeline: Lifeline) -> Iterator[None]:
    """Hold the cache's lock; StoppedError if the job goes away while it is waited for."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache.with_name(f"{cache.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            lifeline.tell({"progress": as_line(Progress(waiting=True))})
            if lifeline.is_gone():
                raise StoppedError from None
    try:
        yield
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main())
