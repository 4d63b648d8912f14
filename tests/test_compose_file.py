"""What docker-compose.yml, deploy/ and the Dockerfile promise, read from the files themselves."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from dagster._core.instance.ref import InstanceRef
from dagster_docker import DockerRunLauncher
from dagster_docker.container_context import DockerContainerContext
from deployment_stack import (
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    ENTRYPOINT,
    SERVICES,
    image_env,
    read_yaml,
)
from docker.models.containers import _create_container_args

from panacea_lib.workspace import PROJECT_ROOT

GPU = read_yaml(PROJECT_ROOT / "docker-compose.gpu.yml")
INSTANCE = read_yaml(DEPLOY / "dagster.yaml")
OURS = ("code", "webserver", "daemon")
SOCKET = "/var/run/docker.sock"
PIN = re.compile(r"[a-z]+:\d+\.\d+\.\d+\S*|postgres:\d+\.\d+-\w+")


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
