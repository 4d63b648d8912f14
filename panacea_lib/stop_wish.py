"""Whether a process was asked to end; heard from its first moment on, so nothing heavy here."""

import os
import signal
import threading


class StopWish:
    """Whether somebody wants this process to end: by SIGTERM, SIGINT, or a lifeline that closed."""

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def is_wanted(self) -> bool:
        """Once True, it stays so."""
        return self._wanted.is_set()

    def make(self) -> None:
        """From within this process."""
        self._wanted.set()

    def hear_signals(self) -> None:
        """From now on SIGTERM and SIGINT are wishes; to be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.make())

    def watch_lifeline(self, descriptor: int = 0) -> None:
        """Also when nobody holds the other end of this pipe (stdin) any more: whoever started this
        process has died."""
        threading.Thread(target=self._watch, args=(descriptor,), daemon=True).start()

    def _watch(self, descriptor: int) -> None:
        while os.read(descriptor, 4096):
            pass
        self.make()
