"""docker-compose.yml keeps its promises, and what it starts works: as processes, on PostgreSQL.

No test machine has Docker's engine. So the slow test starts the commands of the compose file with
its environment as processes on loopback, and judges their health by its health checks. What differs
from containers: host names, ports and paths are mapped (`Stack._mapped`); PostgreSQL is Debian's,
initialised here as the image's own entrypoint would; runs are processes instead of containers
(tests/process_launcher.py); run monitoring looks every 2 seconds.
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
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext
from doc_pages import blocks
from docker.models.containers import _create_container_args
from process_launcher import PID_TAG

from panacea_lib.warehouse import Warehouse
from panacea_lib.warehouse.database import write_lock
from panacea_lib.workspace import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
ENTRYPOINT = DEPLOY / "entrypoint"
SECONDS = 150  # for each thing that is waited for, on a busy machine
SOCKET = "/var/run/docker.sock"
PIN = re.compile(r"[a-z]+:\d+\.\d+\.\d+\S*|postgres:\d+\.\d+-\w+")
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
GPU = read_yaml(PROJECT_ROOT / "docker-compose.gpu.yml")
INSTANCE = read_yaml(DEPLOY / "dagster.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("code", "webserver", "daemon")
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text("utf-8")


def image_env() -> dict[str, str]:
    """What the ENV of the image's last stage sets."""
    last = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ")
    pairs = [word for line in re.findall(r"^ENV (.*)$", last, re.M) for word in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


# ---- what the files promise


def test_there_are_the_services_of_the_design():
    assert set(SERVICES) == {"postgres", *OURS}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_restricted_restarted_and_watched(name):
    service = SERVICES[name]
    assert PIN.fullmatch(service["image"]), service["image"]
    assert service["user"].partition(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True and "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"] and not {"cap_add", "privileged"} & set(service)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["networks"] == ["panacea"] and "network_mode" not in service


def test_only_the_pages_are_published_and_on_loopback():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:3000:3000"]


def test_the_password_is_a_secret_and_no_value():
    assert COMPOSE["secrets"] == {"postgres_password": {"file": "deploy/secrets/postgres_password"}}
    for service in SERVICES.values():
        named = {name for name in service["environment"] if "PASSWORD" in name}
        assert named and all(name.endswith("_PASSWORD_FILE") for name in named)
        assert service["secrets"] == ["postgres_password"]
    assert "PASSWORD" not in DOCKERFILE
    for file in (".gitignore", ".dockerignore"):
        assert "deploy/secrets" in (PROJECT_ROOT / file).read_text("utf-8")
    assert INSTANCE["storage"]["postgres"]["postgres_db"]["password"] == {
        "env": "DAGSTER_POSTGRES_PASSWORD"
    }


def test_the_docker_socket_is_where_runs_are_started_and_stopped():
    holders = {name for name, service in SERVICES.items() if SOCKET in json.dumps(service)}
    assert holders == {"daemon", "webserver"}
    assert SOCKET not in json.dumps(INSTANCE), "a run has no need of it"
    assert SOCKET in (PROJECT_ROOT / "docs" / "operations.md").read_text("utf-8")


def test_the_image_is_pinned_and_not_root():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert set(bases) == {"${PYTHON_IMAGE}", "dependencies"}
    pinned = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.M)
    assert pinned and PIN.fullmatch(pinned[1])
    user = re.findall(r"^USER (\S+)$", DOCKERFILE, re.M)
    assert user == [SERVICES["code"]["user"]]
    version = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"panacea:{version['version']}"}


def test_the_files_agree_on_the_names_they_share():
    storage = INSTANCE["storage"]["postgres"]["postgres_db"]
    postgres = SERVICES["postgres"]["environment"]
    assert storage["username"] == postgres["POSTGRES_USER"]
    assert storage["db_name"] == postgres["POSTGRES_DB"]
    launcher = INSTANCE["run_launcher"]["config"]
    assert launcher["networks"] == [COMPOSE["networks"]["panacea"]["name"]]
    var = f"{image_env()['PANACEA_HOME']}/var"
    assert launcher["container_kwargs"]["volumes"] == [f"{COMPOSE['volumes']['var']['name']}:{var}"]
    assert all(f"var:{var}" in SERVICES[name]["volumes"] for name in OURS)
    assert SERVICES["code"]["environment"]["DAGSTER_CURRENT_IMAGE"] == SERVICES["code"]["image"]
    (server,) = read_yaml(DEPLOY / "workspace.yaml")["load_from"]
    assert server["grpc_server"]["host"] in SERVICES
    assert f"--port={server['grpc_server']['port']}" in SERVICES["code"]["command"]
    for path in re.findall(r"/opt/panacea/(deploy/[\w.]+)", json.dumps(SERVICES) + DOCKERFILE):
        assert (PROJECT_ROOT / path).is_file() and path in DOCKERFILE


def test_it_differs_from_the_local_instance_in_storage_launcher_and_retries_only():
    local = read_yaml(PROJECT_ROOT / "dagster.yaml")
    changed = {name for name in {*local, *INSTANCE} if local.get(name) != INSTANCE.get(name)}
    assert changed == {"storage", "run_launcher", "run_retries", "run_monitoring"}
    longest = {one["run_monitoring"]["max_runtime_seconds"] for one in (local, INSTANCE)}
    assert longest == {3 * 24 * 3600}, "less than the week between two retrainings"
    assert INSTANCE["concurrency"]["runs"]["max_concurrent_runs"] == 1


@pytest.fixture
def launcher(tmp_path, monkeypatch) -> DockerRunLauncher:
    """The one of deploy/dagster.yaml, as Dagster makes it; no engine is asked for anything."""
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    for name, value in (("HOST", "postgres"), ("PORT", "5432"), ("PASSWORD", "secret")):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    found = InstanceRef.from_dir(str(tmp_path)).run_launcher
    assert isinstance(found, DockerRunLauncher)
    return found


def container(context: DockerContainerContext) -> dict[str, Any]:
    """What Docker's client would ask the engine for; TypeError where it does not know a setting."""
    kwargs = {**context.container_kwargs, "image": "panacea", "version": "1.45"}
    kwargs.pop("stop_timeout")  # the launcher keeps that for itself
    return _create_container_args(kwargs)


def test_a_run_s_container_is_as_restricted_as_the_services(launcher):
    config = container(DockerContainerContext().merge(launcher_context(launcher)))
    host = config["host_config"]
    assert host["ReadonlyRootfs"] is True and host["CapDrop"] == ["ALL"] and host["Init"] is True
    assert host["SecurityOpt"] == ["no-new-privileges:true"] and "/tmp" in host["Tmpfs"]
    assert "Privileged" not in host and "DeviceRequests" not in host
    given = set(launcher.env_vars)
    assert given == {f"DAGSTER_POSTGRES_{name}" for name in ("HOST", "PORT", "PASSWORD")}


def launcher_context(launcher: DockerRunLauncher) -> DockerContainerContext:
    return DockerContainerContext(
        env_vars=launcher.env_vars,
        networks=launcher.networks,
        container_kwargs=launcher.container_kwargs,
    )


def test_the_gpu_file_gives_runs_the_gpus_and_services_none(launcher):
    image = GPU["services"]["code"]["image"]
    environment = GPU["services"]["code"]["environment"]
    assert environment["DAGSTER_CURRENT_IMAGE"] == image == f"{SERVICES['code']['image']}-cuda"
    assert {GPU["services"][name]["image"] for name in OURS} == {image}
    of_location = DockerContainerContext.create_from_config(
        json.loads(environment["DAGSTER_CONTAINER_CONTEXT"])
    )
    host = container(launcher_context(launcher).merge(of_location))["host_config"]
    (request,) = host["DeviceRequests"]
    assert request["Driver"] == "nvidia" and request["Count"] == -1
    assert host["ReadonlyRootfs"] is True, "the rest stays"


def test_the_entrypoint_gives_the_password_to_its_command_alone(tmp_path):
    file = tmp_path / "password"
    file.write_text("of the file\n")
    show = [ENTRYPOINT, "sh", "-c", 'printf %s "${DAGSTER_POSTGRES_PASSWORD-none}"']

    def said(**env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            show, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True
        )

    assert said(DAGSTER_POSTGRES_PASSWORD_FILE=str(file)).stdout == "of the file"
    assert said(DAGSTER_POSTGRES_PASSWORD="of a run").stdout == "of a run"
    assert said().stdout == "none"
    missing = said(DAGSTER_POSTGRES_PASSWORD_FILE=str(tmp_path / "nowhere"))
    assert missing.returncode != 0 and "nowhere" in missing.stderr and not missing.stdout


def test_the_image_s_requirements_are_the_project_s():
    found = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    names = {re.split(r"[><=\[]", line)[0] for line in found if line}
    assert {"torch", "dagster-webserver", "dagster-postgres", "dagster-docker"} <= names
    assert "pytest" not in names


# ---- what it starts


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


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """All four, healthy; started in the order of `depends_on`."""
    if POSTGRES_BIN is None:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="panacea-deployment-")).resolve()
    folder.chmod(0o755)  # PostgreSQL's user reads the secret and its own folder in it
    found = Stack(folder)
    try:
        found.prepare()
        found.start_postgres()
        found.wait("postgres", lambda: found.is_healthy("postgres"))
        found.create_database(SERVICES["postgres"]["environment"]["POSTGRES_DB"])
        for service in ("code", "webserver", "daemon"):
            found.start(service)
            found.wait(service, lambda name=service: found.is_healthy(name))
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)


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


@pytest.mark.slow
def test_a_run_goes_through_the_queue_and_its_events_are_in_postgresql(stack):
    run_id = launch(stack)
    run = stack.wait("the run", lambda: ended(stack, runIds=[run_id]))
    assert run["status"] == "SUCCESS", stack.logs()
    types = [kind for kind, _ in events(stack, run_id)]
    told = ["PIPELINE_ENQUEUED", "PIPELINE_STARTING", "STEP_START", "ASSET_MATERIALIZATION"]
    assert [kind for kind in dict.fromkeys(types) if kind in told] == told
    assert "ASSET_CHECK_EVALUATION" in types and "PIPELINE_SUCCESS" in types
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    assert [row["stage"] for row in warehouse.read("from runs").to_pylist()] == ["prompts"]


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_tried_again_and_ends(stack):
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    # Another seed makes new rows, for which the worker must wait as long as the lock is held.
    with write_lock(warehouse.lock, "the test", 1):
        run_id = launch(stack, seed=1)
        stack.wait("the step", lambda: "STEP_START" in [kind for kind, _ in events(stack, run_id)])
        worker = find_run(stack, runIds=[run_id])
        assert worker and worker["status"] == "STARTED"
        os.kill(int(worker["tags"][PID_TAG]), signal.SIGKILL)
    died = stack.wait("the daemon to notice", lambda: ended(stack, runIds=[run_id]))
    assert died["status"] == "FAILURE"
    assert any("the worker ended with -9" in text for _, text in events(stack, run_id))
    parent = [{"key": "dagster/parent_run_id", "value": run_id}]
    again = stack.wait("the retry", lambda: ended(stack, tags=parent))
    assert again["status"] == "SUCCESS", stack.logs()
    assert again["tags"]["dagster/retry_number"] == "1"
    made = warehouse.read("select seed from facts.products where run_id = ?", [again["runId"]])
    assert made["seed"].to_pylist() == [1]


START = """mutation Start($of: ScheduleSelector!) { startSchedule(scheduleSelector: $of) {
  __typename ... on PythonError { message } } }"""
STOP = """mutation Stop($id: String) { stopRunningSchedule(id: $id) {
  __typename ... on PythonError { message } } }"""
SCHEDULE = """query Schedule($of: ScheduleSelector!) { scheduleOrError(scheduleSelector: $of) {
  __typename
  ... on Schedule { cronSchedule scheduleState {
    id status ticks { timestamp status skipReason runKeys runIds error { message } } } } } }"""
DRY_RUN = """mutation Try($of: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $of, timestamp: $at) {
  __typename
  ... on DryRunInstigationTick { evaluationResult {
    skipReason runRequests { runKey } error { message } } } } }"""
IN_REPOSITORY = {"repositoryLocationName": "panacea", "repositoryName": "__repository__"}
OF_TICKING = {**IN_REPOSITORY, "scheduleName": "retrain_ticking"}
SENSOR = """query Sensor($of: SensorSelector!) { sensorOrError(sensorSelector: $of) {
  __typename ... on Sensor { sensorState { status ticks { status error { message } } } } } }"""
AGE = """query Age { assetNodes(assetKeys: [{path: ["champion"]}]) {
  freshnessStatusInfo { freshnessStatus } } }"""


def first_tick(stack: Stack) -> dict[str, Any] | None:
    ticks = stack.ask(SCHEDULE, of=OF_TICKING)["scheduleOrError"]["scheduleState"]["ticks"]
    return ticks[-1] if ticks and ticks[-1]["status"] != "STARTED" else None


@pytest.mark.slow
def test_the_daemon_sees_a_schedule_tick_and_the_next_tick_skips(stack):
    warehouse = Warehouse(stack.home / "var" / "warehouse" / "panacea.duckdb")
    with write_lock(warehouse.lock, "the test", 1):  # the run waits for it, and so does not end
        started = stack.ask(START, of=OF_TICKING)["startSchedule"]
        assert started["__typename"] == "ScheduleStateResult", started
        tick = stack.wait("a tick", lambda: first_tick(stack))
        assert tick["status"] == "SUCCESS", tick
        due = datetime.fromtimestamp(tick["timestamp"], UTC)
        assert tick["runKeys"] == [f"ticking {due:%Y-%m-%dT%H:%M}Z"] and due.second == 0
        (run_id,) = tick["runIds"]
        tried = stack.ask(DRY_RUN, of=OF_TICKING, at=tick["timestamp"] + 60)["scheduleDryRun"]
        found = tried["evaluationResult"]
        assert found["error"] is None and not found["runRequests"], found
        assert found["skipReason"].startswith(f"run {run_id[:8]} of ticking is not finished")
        state = stack.ask(SCHEDULE, of=OF_TICKING)["scheduleOrError"]["scheduleState"]
        stopped = stack.ask(STOP, id=state["id"])["stopRunningSchedule"]
        assert stopped["__typename"] == "ScheduleStateResult", stopped
    made = "select distinct seed from facts.products where run_id = ?"
    stack.wait("a product", lambda: warehouse.read(made, [run_id]).num_rows)
    assert warehouse.read(made, [run_id])["seed"].to_pylist() == [int(tick["timestamp"]) // 60]
    run = find_run(stack, runIds=[run_id])
    assert run
    expected = {
        "dagster/schedule_name": "retrain_ticking",
        "dagster/partition": "ticking",
        "dagster/run_key": tick["runKeys"][0],
        "dagster/max_runtime": "1800",
    }
    assert expected.items() <= run["tags"].items()
    os.kill(int(run["tags"][PID_TAG]), signal.SIGTERM)  # tests/test_schedules.py runs all of it
    assert stack.wait("the run's end", lambda: ended(stack, runIds=[run_id]))["status"] != "SUCCESS"


@pytest.mark.slow
def test_the_daemon_looks_what_may_follow_and_how_old_things_are(stack):
    def ticks() -> list[dict[str, Any]]:
        of = {**IN_REPOSITORY, "sensorName": "cheap_assets_follow"}
        state = stack.ask(SENSOR, of=of)["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING", "without being started"
        return [tick for tick in state["ticks"] if tick["status"] != "STARTED"]

    stack.wait("a tick of the sensor", ticks)
    assert {tick["status"] for tick in ticks()} == {"SKIPPED"}, "no answers were made here"
    (champion,) = stack.ask(AGE)["assetNodes"]
    assert champion["freshnessStatusInfo"] == {"freshnessStatus": "UNKNOWN"}, "there is none yet"


def count_events(stack: Stack, database: str, text: str = "") -> int:
    """The events of a database that hold a text."""
    connection = stack.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from event_logs where event like %s", [f"%{text}%"])
        (found,) = cursor.fetchone() or (0,)
    connection.close()
    return found


def documented(word: str) -> str:
    """The command of docs/operations.md that calls `word`, without what enters the container."""
    lines = "\n".join(blocks(PROJECT_ROOT / "docs" / "operations.md", "")).replace("\\\n", " ")
    enter = r"docker compose (?:exec -T postgres|run --rm -T code) "
    (found,) = re.findall(rf"^{enter}({word} .*)$", lines, re.M)
    return found


@pytest.mark.slow
def test_the_documented_backup_is_restored_by_the_documented_commands(stack, tmp_path):
    def run(command: str) -> None:
        env = stack.environment("code") | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(stack.ports["5432"]),
            "PGPASSWORD": stack.password,
        }
        subprocess.run(["sh", "-euc", command], cwd=tmp_path, env=env, check=True)

    database = SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    restored = tmp_path / "restored"
    restored.mkdir()
    run(documented("pg_dump"))
    run(documented("tar --create").replace("/srv/panacea", str(stack.home)))
    stack.create_database("restored")
    run(documented("psql --username=panacea --quiet").replace(f" {database} ", " restored "))
    run(documented("tar --extract").replace("/srv/panacea", str(restored)))

    assert count_events(stack, "restored") == count_events(stack, database) > 0
    warehouse = Warehouse(restored / "var" / "warehouse" / "panacea.duckdb")
    assert not warehouse.path.exists() and warehouse.snapshot.exists()
    current = "select key from facts.current where problem = 'tiny'"
    (key,) = warehouse.read(current)["key"].to_pylist()
    assert warehouse.is_complete(key), "and the database is back"
    assert warehouse.path.exists()
    assert (restored / "var" / "problems" / "tiny.yaml").exists()


@pytest.mark.slow
def test_nothing_is_written_outside_the_volume_and_no_log_knows_the_password(stack):
    assert {path.name for path in stack.home.iterdir()} == {"dagster.yaml", "var"}
    for log in stack.folder.glob("*.log"):
        assert stack.password not in log.read_text(), log.name
    database = SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    assert count_events(stack, database) > count_events(stack, database, stack.password) == 0
