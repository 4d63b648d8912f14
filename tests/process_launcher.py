"""Stands in for Docker's engine in tests/deployment_stack.py: a process for every run.

It has the contract of Dagster's `DockerRunLauncher` that the daemon relies on: it starts the same
command, with nothing in the environment but what the image and `env_vars` give, and it can tell
that a worker has died.
"""

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

PID_TAG = "test/pid"


class ProcessRunLauncher(RunLauncher, ConfigurableClass):
    """`env_vars` as the Docker launcher's; `image_env` is what the image's ENV says."""

    def __init__(
        self, inst_data: ConfigurableClassData, env_vars: list[str], image_env: dict[str, str]
    ) -> None:
        self._inst_data = inst_data
        self._env_vars = env_vars
        self._image_env = image_env
        self._workers: dict[str, subprocess.Popen] = {}
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {"env_vars": [str], "image_env": dict}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> "ProcessRunLauncher":
        return cls(inst_data, config_value["env_vars"], config_value["image_env"])

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        assert context.job_code_origin
        command = ExecuteRunArgs(
            job_origin=context.job_code_origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
        ).get_command_args()
        env = {**self._image_env, **{name: os.environ[name] for name in self._env_vars}}
        worker = subprocess.Popen(command, env=env)
        self._workers[run.run_id] = worker
        self._instance.add_run_tags(run.run_id, {PID_TAG: str(worker.pid)})

    def terminate(self, run_id: str) -> bool:
        self._workers[run_id].terminate()
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        code = self._workers[run.run_id].poll()
        if code is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, msg=f"the worker ended with {code}")
