"""Two servers for the clients, and the table of what came of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.client_runs import PROMPT, TOKENS, curl
from clients.clients_table import Row, read_versions, show
from support.serving import serve_demo
from trellis.server.settings import ServerSettings

_rows: dict[tuple[str, str], Row] = {}


@pytest.fixture(scope="session")
def streams(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerSettings]:
    """A server as `make repo` makes it: answers may stream."""
    folder = tmp_path_factory.mktemp("streams")
    with serve_demo(demo_engine, folder, expose_inner_models=True) as server:
        yield server.settings


@pytest.fixture(scope="session")
def whole(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerSettings]:
    """A server with `SET=decoupled_mode:false`: what asks by `infer` needs it."""
    folder = tmp_path_factory.mktemp("whole")
    settings = {"decoupled_mode": "false"}
    with serve_demo(demo_engine, folder, settings, expose_inner_models=True) as server:
        yield server.settings


@pytest.fixture(scope="session")
def text(streams: ServerSettings) -> str:
    """What curl gets for PROMPT."""
    return curl(streams, PROMPT, max_tokens=TOKENS)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "client(name, over): the row of the table that it fills")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    marker = item.get_closest_marker("client")
    if marker is None or (report.when != "call" and report.passed):
        return
    name, over = marker.args
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    result = f"not run: {reason}" if report.skipped else str(report.outcome)
    row = _rows.setdefault((name, over), Row(name, read_versions()[name], over, result))
    _rows[name, over] = row.worst(result)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("third-party clients")
    for line in show(list(_rows.values())):
        terminalreporter.write_line(line)
