"""Two servers for the clients, and the table of what came of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.client_runs import PROMPT, TOKENS, curl
from clients.clients_table import Row, read_versions, show
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports
from trellis.server.process import Server, ServerSettings

_rows: dict[tuple[str, str], Row] = {}


@contextmanager
def serve(demo: tuple[Path, Path], folder: Path, **values: str) -> Iterator[ServerSettings]:
    """The demo engine, assembled with `values` and launched with its inner models exposed."""
    engine, tokenizer = demo
    assemble(Plan(read_engine(engine), "gpt2", tokenizer, settings=values), folder / "repo")
    http, grpc, metrics = free_ports(3)
    settings = ServerSettings(folder / "repo", http, grpc, metrics, expose_inner_models=True)
    with (folder / "triton.log").open("wb") as log, Server(settings, log) as server:
        server.wait_ready()
        yield settings


@pytest.fixture(scope="session")
def streams(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerSettings]:
    """A server as `make repo` makes it: answers may stream."""
    with serve(demo_engine, tmp_path_factory.mktemp("streams")) as settings:
        yield settings


@pytest.fixture(scope="session")
def whole(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerSettings]:
    """A server with `SET=decoupled_mode:false`: what asks by `infer` needs it."""
    folder = tmp_path_factory.mktemp("whole")
    with serve(demo_engine, folder, decoupled_mode="false") as settings:
        yield settings


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
