"""The Dagster UI in headless Chromium: its lineage page shows the graph, and clicks make rows."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from orchestration.definitions import defs
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DEV = [sys.executable, "-m", "orchestration.cli", "dev", "--host", "127.0.0.1"]
START_SECONDS = 120  # the code server imports our definitions; a busy machine is slow at that
RUN_SECONDS = 120

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` here: apt-get install chromium"),
]


@dataclass(frozen=True)
class Server:
    """A `panacea dev` of its own, on a workspace with nothing in it."""

    url: str
    workspace: Workspace


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{url}/server_info", timeout=5).read()
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def end(process: subprocess.Popen) -> None:
    """The server and every process it started: they are one group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("browser")
    url, log = f"http://127.0.0.1:{free_port()}", folder / "dev.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*DEV, "--port", url.rpartition(":")[2]],
            env={**os.environ, "PANACEA_HOME": str(folder / "home")},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_it_answers(url, process, log)
        yield Server(url, Workspace(folder / "home"))
    finally:
        end(process)


@pytest.fixture
def page(server, tmp_path, request) -> Iterator[Page]:
    """The lineage page with every group opened; what it looked like at the end is kept."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        try:
            page.goto(f"{server.url}/asset-groups")
            expect(page.get_by_text("Global asset lineage")).to_be_visible(timeout=60_000)
            expect(graph(page).get_by_text("dataset", exact=True).first).to_be_visible()
            page.keyboard.press("Alt+e")  # opens all groups
            yield page
        finally:
            page.screenshot(path=tmp_path / "last.png")
            print(f"last seen: {tmp_path / 'last.png'}")
            browser.close()


def graph(page: Page):
    """The drawing, and not the list of assets beside it."""
    return page.locator("svg foreignObject")


def asset_names() -> list[str]:
    keys = defs.resolve_asset_graph().get_all_asset_keys()
    return sorted(key.to_user_string() for key in keys)


def test_the_lineage_page_shows_every_asset_and_group(page):
    names = asset_names()
    assert {"prompts", "pareto_front", "report"} <= set(names)
    for name in names:
        expect(graph(page).get_by_text(name, exact=True).first).to_be_visible()
    for group in ("dataset", "preferences", "rewards", "policies", "evaluation"):
        expect(graph(page).get_by_text(group, exact=True).first).to_be_visible()


def test_an_asset_is_materialised_from_the_page(page, server):
    graph(page).get_by_text("prompts", exact=True).first.click()
    page.get_by_role("button", name="Materialize selected").click()
    dialog = page.get_by_role("dialog")
    title = dialog.get_by_text("Launch runs to materialize prompts")
    expect(title).to_be_visible()
    dialog.get_by_text("Select a partition").click()
    page.get_by_role("menuitem").filter(has_text=re.compile("^tiny")).click()
    title.click()  # closes the list
    dialog.get_by_role("button", name=re.compile("^Launch")).click()
    expect(title).to_be_hidden()
    wait_for_rows(page, server)
    found = Warehouse(server.workspace.warehouse).read("from runs").to_pylist()
    assert {(row["problem"], row["stage"]) for row in found} == {("tiny", "prompts")}
    rows = Warehouse(server.workspace.warehouse).read("select count(*) as n from facts.prompts")
    assert rows["n"][0].as_py() == 100
    # The page says so too: the run is in the list, and it succeeded, its check included.
    page.goto(f"{server.url}/runs")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=60_000)


def wait_for_rows(page: Page, server: Server) -> None:
    """Until the run that was launched has published its rows."""
    warehouse = Warehouse(server.workspace.warehouse)
    deadline = time.monotonic() + RUN_SECONDS
    while not warehouse.snapshot.exists():
        assert time.monotonic() < deadline, "the run published nothing in two minutes"
        page.wait_for_timeout(200)
