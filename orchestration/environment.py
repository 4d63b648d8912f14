"""What must be set before Dagster or a model library is imported: where, and how quietly."""

import atexit
import ctypes
import logging
import os
import platform
import re
import shutil
import sys
import warnings
from pathlib import Path

from panacea_lib.plan import is_offline
from panacea_lib.problem import Problem
from panacea_lib.workspace import PROJECT_ROOT, Workspace

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATH_VARIABLES = ("PANACEA_HOME", "PANACEA_ARTIFACTS")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_CHATTY = ("transformers", "bitsandbytes", "datasets", "huggingface_hub", "trl", "peft", "dagster")


def enter_workspace(workspace: Workspace) -> None:
    """Make the workspace the working directory and DAGSTER_HOME, so that there is one instance.

    Relative paths in `dagster.yaml` are relative to the working directory. Relative paths in the
    variables that people set were meant from where they stand, so those are made absolute first.
    """
    _anchor_variables(workspace)
    root = workspace.root
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "dagster.yaml").exists():
        # Whole or not at all: half a file is another instance to Dagster. Two may begin at once.
        partial = root / f".dagster.yaml.{os.getpid()}"
        shutil.copyfile(PROJECT_ROOT / "dagster.yaml", partial)
        partial.replace(root / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(root)
    os.chdir(root)


def _anchor_variables(workspace: Workspace) -> None:
    problems = os.environ.get("PANACEA_PROBLEMS", "")
    if problems:
        folders = [str(Path(p).expanduser().resolve()) for p in problems.split(os.pathsep) if p]
        os.environ["PANACEA_PROBLEMS"] = os.pathsep.join(folders)
    named = set(_PATH_VARIABLES)
    for folder in workspace.problem_dirs:
        for file in folder.glob("*.yaml"):
            named.update(_VARIABLE.findall(file.read_text("utf-8")))
    for name in named:
        value = os.environ.get(name, "")
        if value and "://" not in value and Path(value).exists():
            os.environ[name] = str(Path(value).resolve())


def disable_telemetry() -> None:
    """No library reports home; a value that is set already stays."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # Dagster forks: avoids its warning


def share_cores() -> None:
    """Let threads that wait for each other sleep after some microseconds, not milliseconds.

    torch's threads meet after every small kernel. When another process wants the cores too, GNU
    OpenMP's default wait made a step of two trainings at once 27 times slower; with this it is as
    fast alone, and 2.5 times slower beside another (docs/decisions.md). Read when torch is loaded.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")


def keep_freed_memory() -> None:
    """Let glibc keep for the next step what a training step frees, where glibc it is.

    By default it gives a large tensor's pages back, and the kernel zeroes them anew at the next
    use, in every step (docs/decisions.md has what that cost).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def go_offline(problem: Problem) -> None:
    """Keep the hub's library from asking the network where the problem needs nothing of it.

    Read when the library is first imported: call this before.
    """
    if is_offline(problem):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def be_quiet() -> None:
    """Let only errors through: the command line has a display of its own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    atexit.register(_mute_stderr)  # registered first, so run last


def _mute_stderr() -> None:
    """For what is left of this process: once torch is loaded, DuckDB's binding (nanobind) lists
    pages of "leaked" types when the interpreter is torn down."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
