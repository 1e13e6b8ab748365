# SPDX-License-Identifier: Apache-2.0
"""Where a server listens: HTTP, gRPC and metrics at addresses of their own."""

import dataclasses
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trellis.preflight.check import verdict
from trellis.preflight.machine import Listening, check_listening, check_open_files
from trellis.server.file_limit import FEW, MOST, reachable_limit
from trellis.server.ports import PortTaken, check_ports, free_ports
from trellis.server.settings import Behind, ServerSettings
from trellis.server.triton_options import ExtraOptionError, check_extra

SETTINGS = ServerSettings(Path("repo"), 1, 2, 3)


def places(settings: ServerSettings, behind: Behind | None = None) -> dict[str, str]:
    """Where tritonserver is told to listen."""
    arguments = settings.arguments("p", behind)
    found = dict(option.split("=", 1) for option in arguments if "=" in option)
    return {
        name: f"{found[f'--{name}-address']}:{found[f'--{name}-port']}"
        for name in ("http", "grpc", "metrics")
    }


def test_an_address_of_http_opens_neither_grpc_nor_metrics() -> None:
    opened = dataclasses.replace(SETTINGS, address="0.0.0.0")
    assert places(opened) == {"http": "0.0.0.0:1", "grpc": "127.0.0.1:2", "metrics": "127.0.0.1:3"}
    shut = {"http": "127.0.0.1:9", "grpc": "127.0.0.1:2", "metrics": "127.0.0.1:8"}
    assert places(opened, Behind(http=9, metrics=8, grpc=0)) == shut
    assert places(opened, Behind(http=9, metrics=8, grpc=7)) == {**shut, "grpc": "127.0.0.1:7"}


def test_each_has_an_address_of_its_own() -> None:
    settings = dataclasses.replace(SETTINGS, grpc_address="10.0.0.1", metrics_address="10.0.0.2")
    expected = {"http": "127.0.0.1:1", "grpc": "10.0.0.1:2", "metrics": "10.0.0.2:3"}
    assert places(settings) == expected
    assert Listening.of(settings) == Listening(("127.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 3))


@pytest.mark.parametrize("option", ["grpc", "metrics"])
def test_tritonservers_own_option_names_the_launchers(option: str) -> None:
    with pytest.raises(ExtraOptionError, match=f"use --{option}_address"):
        check_extra([f"--{option}-address=0.0.0.0"])


@pytest.mark.parametrize("command", ["launch", "check", "serve-docker"])
def test_the_options_are_there_in_both_spellings(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from trellis.cli.main import main; main()", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    for name in ("grpc", "metrics"):
        assert f"--{name}_address" in done.stdout
        assert f"--{name}-address" in done.stdout


def test_a_port_is_looked_for_at_its_own_address() -> None:
    port, other, third = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", port))
        taken.listen()
        check_ports({"http_port": ("127.0.0.1", port), "grpc_port": ("127.0.0.1", other)})
        with pytest.raises(PortTaken, match=f"--grpc_port {port} is taken"):
            check_ports({"grpc_port": ("127.0.0.2", port)})
        listening = Listening(("127.0.0.1", other), ("127.0.0.2", port), ("127.0.0.1", third))
        (found,) = check_listening(listening)
    assert not found.ok
    assert found.needed == "free on 127.0.0.1, 127.0.0.2"


def test_a_port_is_given_out_once_and_a_server_may_listen_there() -> None:
    """Of another process, too: two servers that start at once get different ports."""
    port, *_ = given = free_ports(3)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    ask = "import sys; from trellis.server.ports import _hold; print(_hold(int(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", ask, str(port)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"
    check_ports(dict(zip("abc", (("127.0.0.1", one) for one in given), strict=True)))
    with socket.socket() as sharing:  # as llama.cpp's server does
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind(("127.0.0.1", port))
        sharing.listen()
    for address in ("127.0.0.1", ""):
        taken = pytest.raises(PortTaken, match=f"--http_port {port} is taken")
        with socket.create_server((address, port)), taken:
            check_ports({"http_port": ("127.0.0.1", port)})


def test_few_open_files_are_a_warning_and_no_failure() -> None:
    few, many = check_open_files(FEW), check_open_files(FEW + 1)
    assert (few.ok, few.warns) == (True, True)
    assert "ulimit -n" in few.remedy
    assert (many.ok, many.warns) == (True, False)
    assert verdict([few]).startswith("ok")


RAISE = """
import resource, sys
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from trellis.server.file_limit import raise_file_limit, reachable_limit
reachable = reachable_limit()
raise_file_limit()
print(reachable, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_processs_limit_is_raised_as_far_as_it_may_be() -> None:
    command = [sys.executable, "-c", RAISE, "256", "2048"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2048", "2048", "2048"]


def test_the_limit_that_is_reachable_is_bounded() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert min(soft, MOST) <= reachable_limit() <= max(soft, MOST)
