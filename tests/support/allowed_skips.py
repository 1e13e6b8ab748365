"""A run with `--strict-skips` fails if more is skipped than allowed_skips.txt says.

A test that skips where something is missing shows nothing there, and a summary that only counts
skips hides it. The list says for which reasons a test may be skipped, and why that is right.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from support.paths import ROOT

LIST = ROOT / "tests" / "allowed_skips.txt"
SHOWN = 10  # tests of one reason that are named


class Allowed(NamedTuple):
    """A line of the list: patterns of a file and of a skip's reason, and why it is allowed."""

    file: str
    reason: str
    why: str

    def covers(self, file: str, reason: str) -> bool:
        """Whether a skip is one of these."""
        return fnmatchcase(file, self.file) and fnmatchcase(reason, self.reason)


class Skip(NamedTuple):
    """A test, or a whole file, that was skipped."""

    node: str
    reason: str

    @property
    def file(self) -> str:
        """The file's path, relative to the root."""
        return self.node.partition("::")[0]


def read_list(path: Path) -> list[Allowed]:
    """The lines `file | reason | why`; raises pytest.UsageError for one of another form."""
    allowed = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(" | ")]
        if len(parts) != 3 or not all(parts):
            raise pytest.UsageError(f"{path}:{number}: not `file | reason | why`: {line}")
        allowed.append(Allowed(*parts))
    return allowed


class StrictSkips:
    """Collects what is skipped, and fails the run for what the list does not cover."""

    def __init__(self, allowed: list[Allowed]) -> None:
        self.allowed = allowed
        self.others: list[Skip] = []

    def add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Note a skip that the list does not cover; tests expected to fail are none."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        skip = Skip(report.nodeid, reason.removeprefix("Skipped: "))
        if not any(allowed.covers(skip.file, skip.reason) for allowed in self.allowed):
            self.others.append(skip)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test, or its set-up."""
        self.add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that skips itself as a whole."""
        self.add(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """The exit status is that of a run with failures."""
        if self.others and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        """Names each, by its reason and after all else; the first of many."""
        yield
        if not self.others:
            return
        terminalreporter.section(f"{len(self.others)} skipped, but not in {LIST.name}", red=True)
        nodes: dict[tuple[str, str], list[str]] = {}
        for skip in self.others:
            nodes.setdefault((skip.file, skip.reason), []).append(skip.node)
        for (file, reason), named in nodes.items():
            terminalreporter.line(f"NOT ALLOWED {file}: {reason}")
            for node in named[:SHOWN]:
                terminalreporter.line(f"  {node}")
            if len(named) > SHOWN:
                terminalreporter.line(f"  and {len(named) - SHOWN} more")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this file."""
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help=f"fail if more is skipped than tests/{LIST.name} allows",
    )
    parser.addoption("--allowed-skips", type=Path, default=LIST, help="another such list")


def pytest_configure(config: pytest.Config) -> None:
    """Watch only where it is asked for."""
    if config.getoption("strict_skips"):
        plugin = StrictSkips(read_list(config.getoption("allowed_skips")))
        config.pluginmanager.register(plugin, "strict-skips")
