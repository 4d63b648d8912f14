"""A policy's training in a process beside the run, through Dagster Pipes: told, ended, and retried.

The run holds a pipe to the stdin of the process, its lifeline, and closes it when it ends, for
whatever reason: then the training saves a checkpoint and ends too. (`PipesSubprocessClient` has no
such pipe, and does not say how a process died.)
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from orchestration.progress import StepListener
from orchestration.stage import StageRun
from orchestration.training_job import LaunchFolder, Told, TrainingJob
from panacea_lib.errors import InputError, NotEnoughMemoryError, TrainingStoppedError
from panacea_lib.lease import LeaseHeldError
from panacea_lib.memory import TRAINING_REMEDY
from panacea_lib.train_result import TrainResult

_MODULE = "orchestration.training_process"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 120.0  # to end a step and save a checkpoint
_RETRIES = 2
_WAIT_SECONDS = 5.0  # before a retry: whoever took the memory may have left by then
# What a person can mend; other errors of a training are told as `TrainingFailedError`.
_TOLD = (InputError, NotEnoughMemoryError, TrainingStoppedError, FloatingPointError)


class TrainingFailedError(RuntimeError):
    """A training process failed; what it printed is in the log of the run's stderr."""


class TrainingKilledError(RuntimeError):
    """A training process was killed before it could say anything."""


def train_beside(run: StageRun, job: TrainingJob, folder: Path) -> TrainResult:
    """As `panacea_lib.training.train_policy`, in as many processes as the problem says.

    dg.RetryRequested where one of them was killed: the retry goes on from the last checkpoint.
    """
    launch = LaunchFolder.new(job.checkpoints, job)
    _free_gpus()
    code = _run(run, job, launch)
    told = launch.told()
    if told is None and code == 1 and run.problem.launch.processes == 1:
        # It was not killed, and whatever happens once it has begun, it tells.
        raise TrainingFailedError("the process could not begin; the run's stderr says why")
    if told is None:
        killed = _killed(job, code)
        raise dg.RetryRequested(max_retries=_RETRIES, seconds_to_wait=_WAIT_SECONDS) from killed
    if told.result is None:
        raise _error(told)
    shutil.copytree(launch.adapters, folder, dirs_exist_ok=True)
    return told.result


def command(launch: Path, processes: int) -> list[str]:
    """What starts the training of a launch folder."""
    if processes == 1:
        return [sys.executable, "-m", _MODULE, str(launch)]
    # --multi_gpu is how accelerate starts several processes; where there is no GPU they train on
    # the CPU (with --cpu it would start one, or need MPI). Port 0 is any that is free.
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=1"]
    launcher += [f"--num_processes={processes}", "--main_process_port=0"]
    launcher += ["--mixed_precision=no", "--dynamo_backend=no"]
    return [sys.executable, *launcher, "--module", _MODULE, str(launch)]


def _run(run: StageRun, job: TrainingJob, launch: LaunchFolder) -> int:
    """Start the training, pass on what it tells, and wait for its end; its exit status."""
    listener = run.reporter.listener(job.method)
    processes = run.problem.launch.processes
    with dg.open_pipes_session(
        context=run.context,  # type: ignore[arg-type]
        context_injector=dg.PipesTempFileContextInjector(),
        message_reader=dg.PipesTempFileMessageReader(),
    ) as session:
        process = subprocess.Popen(
            command(launch.path, processes),
            env={**os.environ, **session.get_bootstrap_env_vars()},
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run, which closes the lifeline
        )
        try:
            heard = 0
            while process.poll() is None:
                heard = _pass_on(session, heard, listener)
                time.sleep(_POLL_SECONDS)
        finally:
            _end(run, process)
    _pass_on(session, heard, listener)
    return process.returncode


def _pass_on(session: dg.PipesSession, heard: int, listener: StepListener) -> int:
    """Tell the listener what has come since `heard` messages; how many there are now."""
    messages = session.get_custom_messages()
    for told in messages[heard:]:
        listener(told["step"], told["total"], told["metrics"])
    return len(messages)


def _end(run: StageRun, process: subprocess.Popen) -> None:
    """Close the lifeline, and wait until the training has ended, as it does soon after."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        run.context.log.warning(
            f"the training (pid {process.pid}) goes on: it ends when its step does, and another "
            "one of this policy waits for that"
        )


def _killed(job: TrainingJob, code: int) -> TrainingKilledError:
    """Of several processes only the launcher's exit status is known."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"(exit status {code})"
    said = f"a process that trained {job.method} was killed {how}; its last checkpoint is kept"
    if code >= 0 or code == -signal.SIGKILL:
        said += ". Unless somebody did that, it was the kernel, for want of memory: "
        said += TRAINING_REMEDY
    return TrainingKilledError(said)


def _error(told: Told) -> Exception:
    """What the training raised, as if it had been raised here."""
    if told.error == LeaseHeldError.__name__:
        return LeaseHeldError(told.message, "")
    known = {error.__name__: error for error in _TOLD}
    if told.error in known:
        return known[told.error](told.message)
    return TrainingFailedError(f"{told.error}: {told.message}")


def _free_gpus() -> None:
    """Give back what torch keeps of GPU memory for this process, which does not train."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
