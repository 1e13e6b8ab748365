"""Limits are changed by their names, and what is no limit is said to be none."""

import logging
import subprocess
from pathlib import Path

import pytest
from typer import Exit

from trellis.cli.launch import _limits
from trellis.errors import TrellisError
from trellis.gateway.limits import Limits, connections_for
from trellis.gateway.log_rate import LineLimit
from trellis.server.access_settings import AccessSettings
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports

DOCS = Path(__file__).parents[3] / "docs" / "gateway.md"


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
def test_every_limit_is_on_its_page(name: str) -> None:
    assert f"`{name}`" in DOCS.read_text()


def test_the_launcher_takes_them_by_name() -> None:
    limits = _limits(["connections=5", "idle_seconds=0.5"])
    made = Limits.of(limits)
    assert (made.connections, made.idle_seconds) == (5, 0.5)
    assert isinstance(made.connections, int)
    assert made.head_bytes == Limits().head_bytes


@pytest.mark.parametrize("wrong", ["connections", "connections=", "connections=x", "=", "a=b=1"])
def test_what_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(Exit):
        _limits([wrong])


@pytest.mark.parametrize("wrong", [{"connection": 1}, {"connections": -1}, {"x" * 999: 1}])
def test_what_is_no_limit_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(TrellisError, match="limits: "):
        Limits.of(wrong)
    (port,) = free_ports(1)
    settings = GatewaySettings("127.0.0.1", port, 1, 1, 1.0, limits=wrong)
    ended = subprocess.run(settings.command(), cwd=IMPORTED_FROM, capture_output=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"HTTP gateway: limits: ")
    assert ended.stderr.count(b"\n") == 1


def test_connections_leave_files_for_triton_and_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for files, most in ((1024, 448), (65_536, 8192), (100, 1)):
        monkeypatch.setattr("resource.getrlimit", lambda _, n=files: (n, n))
        assert connections_for(Limits()) == most


def test_settings_go_through_the_command_line_whole() -> None:
    settings = GatewaySettings(
        "::1",
        1,
        2,
        3,
        4.0,
        "/x",
        True,
        True,
        "key",
        {"connections": 5},
        access=AccessSettings(api_keys="/k", cors_origins=("https://a",)),
    )
    assert GatewaySettings.of(settings.command()[-1]) == settings


def test_the_log_has_so_many_lines_and_says_how_many_it_lacks() -> None:
    clock = [0.0]
    limit = LineLimit(2.0, 3, lambda: clock[0])

    def line() -> str | None:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "bad %s", ("thing",), None)
        try:
            raise ValueError("a traceback")
        except ValueError as error:
            record.exc_info = (type(error), error, error.__traceback__)
        if not limit.filter(record):
            return None
        return logging.Formatter("%(message)s").format(record)

    assert [line() for _ in range(5)] == ["bad thing"] * 3 + [None] * 2
    clock[0] += 0.5
    assert [line(), line()] == ["(2 lines left out) bad thing", None]
    clock[0] += 100
    assert [line() for _ in range(4)][:2] == ["(1 lines left out) bad thing", "bad thing"]
