"""The services of docker-compose.yml as processes on loopback, with a real PostgreSQL.

No test machine has Docker's engine. So the commands of the compose file are started with its
environment, and their health is judged by its health checks. What differs from containers: host
names, ports and paths are mapped (`Stack._mapped`); PostgreSQL is Debian's, initialised here as the
image's own entrypoint would; runs are processes instead of containers (tests/process_launcher.py);
run monitoring looks every 2 seconds.
"""

import json
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import yaml

from panacea_lib.workspace import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
ENTRYPOINT = DEPLOY / "entrypoint"
SECONDS = 150  # for each thing that is waited for, on a busy machine
T = TypeVar("T")
# Started by hand in its test: it is due every minute.
TICKING = """\
name: ticking
extends: tiny
retrain: {cron: "* * * * *", max_hours: 0.5, seed: fresh}
"""


def read_yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8"))


COMPOSE = read_yaml(PROJECT_ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text("utf-8")


def image_env() -> dict[str, str]:
    """What the ENV of the image's last stage sets."""
    last = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ")
    pairs = [word for line in re.findall(r"^ENV (.*)$", last, re.M) for word in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def postgres_bin() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps them off the PATH."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return versions[-1].parent if versions else None


POSTGRES_BIN = postgres_bin()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def somebody() -> dict[str, Any]:
    """Whom PostgreSQL runs as, for Popen: it refuses to be root."""
    if os.getuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Stack:
    """The services of the compose file as processes, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "srv"  # what is /srv/panacea in a container
        self.database = folder / "postgres"
        self.ports = {port: free_port() for port in ("3000", "4000", "5432")}
        self.password = secrets.token_hex(16)
        self._secret = folder / "password"
        self._workspace = folder / "workspace.yaml"
        self._processes: dict[str, subprocess.Popen] = {}
        self._image = {
            **{name: self._mapped(value) for name, value in image_env().items()},
            "PATH": f"{Path(sys.executable).parent}:{POSTGRES_BIN}:{os.environ['PATH']}",
            # The image has the project installed; the launcher that stands in lies in tests/.
            "PYTHONPATH": f"{PROJECT_ROOT}:{PROJECT_ROOT / 'tests'}",
        }

    def prepare(self) -> None:
        """The secret, the instance's and the workspace's files, and a problem in the volume."""
        self._secret.write_text(self.password)
        self._secret.chmod(0o444)
        problems = self.home / "var" / "problems"
        problems.mkdir(parents=True)
        shutil.copy(PROJECT_ROOT / "tests" / "problems" / "tiny.yaml", problems)
        (problems / "ticking.yaml").write_text(TICKING)
        instance = read_yaml(DEPLOY / "dagster.yaml")
        instance["run_launcher"] = {
            "module": "process_launcher",
            "class": "ProcessRunLauncher",
            "config": {
                "env_vars": instance["run_launcher"]["config"]["env_vars"],
                "image_env": self._image,
            },
        }
        instance["run_monitoring"]["poll_interval_seconds"] = 2
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(instance))
        workspace = read_yaml(DEPLOY / "workspace.yaml")
        server = workspace["load_from"][0]["grpc_server"]
        server.update(host="127.0.0.1", port=int(self.ports[str(server["port"])]))
        self._workspace.write_text(yaml.safe_dump(workspace))

    def _mapped(self, text: str) -> str:
        """What a container sees, as it is here."""
        text = text.replace("/opt/panacea/deploy/workspace.yaml", str(self._workspace))
        text = text.replace("/opt/panacea", str(PROJECT_ROOT))
        text = text.replace("/srv/panacea", str(self.home))
        text = text.replace("/run/secrets/postgres_password", str(self._secret))
        text = re.sub(r"^/tmp$", str(self.folder), text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"\b(3000|4000|5432)\b", lambda port: str(self.ports[port[0]]), text)

    def environment(self, service: str) -> dict[str, str]:
        given = {
            name: "127.0.0.1" if value in SERVICES else self._mapped(value)
            for name, value in SERVICES[service]["environment"].items()
        }
        return {**self._image, **given}

    def start(self, service: str) -> None:
        """As the image does: the entrypoint, with the service's command."""
        command = [self._mapped(word) for word in SERVICES[service]["command"]]
        self._spawn(service, [str(ENTRYPOINT), *command], self.environment(service), self.home)

    def start_postgres(self) -> None:
        """Initialise and start it, as the entrypoint of PostgreSQL's image does."""
        assert POSTGRES_BIN
        told = SERVICES["postgres"]["environment"]
        who = somebody()
        self.database.mkdir(mode=0o700)
        if who:
            os.chown(self.database, who["user"], who["group"])
        initdb = [POSTGRES_BIN / "initdb", "--pgdata", self.database, "--encoding=UTF8"]
        initdb += ["--username", told["POSTGRES_USER"], "--pwfile", self._secret, "--no-sync"]
        subprocess.run(
            [*initdb, "--auth=scram-sha-256"],
            check=True,
            capture_output=True,
            cwd="/",
            **who,
        )
        server = [str(POSTGRES_BIN / "postgres"), "-D", str(self.database), "-F"]
        server += ["-p", str(self.ports["5432"]), "-c", "listen_addresses=127.0.0.1"]
        server += ["-c", f"unix_socket_directories={self.database}"]
        self._spawn("postgres", server, dict(os.environ), Path("/"), **who)

    def create_database(self, name: str) -> None:
        connection = self.connect("postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name}")
        connection.close()

    def connect(self, database: str) -> Any:
        user = SERVICES["postgres"]["environment"]["POSTGRES_USER"]
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.ports["5432"],
            user=user,
            password=self.password,
            dbname=database,
        )

    def _spawn(
        self, name: str, command: list[str], env: dict[str, str], cwd: Path, **who: Any
    ) -> None:
        with self.log(name).open("w") as out:
            self._processes[name] = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **who,
            )

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def logs(self) -> str:
        return "\n".join(
            f"==== {name}\n{self.log(name).read_text()[-4000:]}" for name in self._processes
        )

    def is_healthy(self, service: str) -> bool:
        """By the compose file's own check."""
        assert self._processes[service].poll() is None, self.logs()
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        env = self.environment(service)
        command = [self._mapped(word) for word in words]
        command[0] = shutil.which(command[0], path=env["PATH"]) or command[0]
        return subprocess.run(command, env=env, cwd=self.home, capture_output=True).returncode == 0

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The GraphQL API of the web server."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['3000']}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def wait(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + SECONDS
        while True:
            found = look()
            if found:
                return found
            assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}\n{self.logs()}"
            time.sleep(0.5)

    def end(self) -> None:
        """Every process and what it started: a service and its runs are one group."""
        for name, process in reversed(self._processes.items()):
            if name != "postgres":
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
        for name, process in reversed(self._processes.items()):
            if name == "postgres" and process.poll() is None:
                process.send_signal(signal.SIGINT)  # its own children it ends itself
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# ---- what it is asked


LAUNCH = """mutation Launch($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
RUNS = """query Runs($filter: RunsFilter) { runsOrError(filter: $filter) {
  __typename
  ... on Runs { results { runId status tags { key value } } } } }"""


def launch(stack: Stack, **settings: Any) -> str:
    """`prompts` of `tiny`, as the page launches it: through the queue; the run's id."""
    run = {
        "selector": {
            "repositoryLocationName": "panacea",
            "repositoryName": "__repository__",
            "jobName": "chain",
            "assetSelection": [{"path": ["prompts"]}],
        },
        "runConfigData": {"resources": {"settings": {"config": settings}}},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "tiny"}]},
        "mode": "default",
    }
    found = stack.ask(LAUNCH, run=run)["launchRun"]
    assert found["__typename"] == "LaunchRunSuccess", found
    return found["run"]["runId"]


def find_run(stack: Stack, **wanted: Any) -> dict[str, Any] | None:
    """The newest run of a filter, its tags as a mapping."""
    found = stack.ask(RUNS, filter=wanted)["runsOrError"]["results"]
    return found[0] | {"tags": {t["key"]: t["value"] for t in found[0]["tags"]}} if found else None


def ended(stack: Stack, **wanted: Any) -> dict[str, Any] | None:
    run = find_run(stack, **wanted)
    return run if run and run["status"] in {"SUCCESS", "FAILURE", "CANCELED"} else None


def events(stack: Stack, run_id: str) -> list[tuple[str | None, str]]:
    """Type and text of a run's events, from PostgreSQL."""
    connection = stack.connect(SERVICES["postgres"]["environment"]["POSTGRES_DB"])
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select dagster_event_type, event from event_logs where run_id = %s order by id",
            [run_id],
        )
        rows = cursor.fetchall()
    connection.close()
    return rows
