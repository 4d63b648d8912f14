"""What all tests share: a workspace of their own, and one chain that really ran in it."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Before anything of ours is imported: definitions find problems when they are loaded, and no test
# may touch the developer's own warehouse. A worker of pytest-xdist has a workspace of its own.
HOME = Path(tempfile.mkdtemp(prefix="panacea-tests-")).resolve()
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(
    PANACEA_HOME=str(HOME),
    PANACEA_PROBLEMS=str(TESTS / "problems"),
    HF_HUB_OFFLINE="1",
    DO_NOT_TRACK="1",
    # Models as small as the tests' gain nothing from more. It must hold for the commands that tests
    # start as well: sums of floats depend on it, and some are compared with this process'.
    OMP_NUM_THREADS="1",
)
os.environ.pop("PANACEA_ARTIFACTS", None)


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


def panacea(*arguments: str, cwd: Path | None = None) -> Finished:
    """Run the command line in a process of its own, as a user does."""
    found = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=900,  # of a run that hangs: this machine may be busy with other things
    )
    return Finished(found.returncode, found.stdout, found.stderr)


@pytest.fixture(scope="session")
def chain() -> Finished:
    """`panacea materialize tiny`, once for all tests: every asset, nothing stubbed."""
    finished = panacea("materialize", "tiny")
    assert finished.code == 0, finished.err
    return finished
