"""Bytes of any kind: the gateway lives, answers the next client, and leaks no descriptor."""

import socket
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.gateway_wire import ENSEMBLE, Wire, descriptors, get, post, stream, wait_for
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports
from trellis.server.process import Server

GOOD = {"text_input": "Hi", "max_tokens": 2}
PARTS = [
    get(),
    get("/v2", "Connection: close"),
    post(GOOD),
    stream(GOOD),
    post({**GOOD, "max_tokens": "x"}),
    b"POST %s/generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % ENSEMBLE.encode(),
    b"5\r\n{\"a\":\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Content-Length: 10\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    b"\r\n",
    b"HEAD /v2 HTTP/1.1\r\n\r\n",
    b"PUT /v2/repository/index HTTP/1.0\r\n\r\n",
]  # fmt: skip
BYTES = st.lists(st.sampled_from(PARTS) | st.binary(max_size=80), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def front(server: Server) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A gateway of this test's own, before the server of all tests: its port and process."""
    (public,) = free_ports(1)
    assert server.gateway is not None
    import psutil

    command = psutil.Process(server.process.pid).cmdline()
    behind = next(int(part.split("=")[1]) for part in command if part.startswith("--http-port="))
    settings = GatewaySettings("127.0.0.1", public, behind, server.process.pid, 5.0)
    process = subprocess.Popen(settings.command(), cwd=IMPORTED_FROM)
    try:
        wait_for(lambda: _answers(public))
        yield public, process
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with Wire(port) as wire:
            return wire.send(get()).answer().status == 200
    except ConnectionRefusedError:
        return False


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=BYTES, cut=st.integers(1, 40), half=st.booleans())
def test_any_bytes_leave_the_front_as_it_was(
    front: tuple[int, "subprocess.Popen[bytes]"], parts: list[bytes], cut: int, half: bool
) -> None:
    port, process = front
    before = descriptors(process.pid)
    data = b"".join(parts)
    with Wire(port, 10) as wire:
        try:
            for start in range(0, len(data), max(len(data) // cut, 1)):
                wire.send(data[start : start + max(len(data) // cut, 1)])
            if half:
                wire.socket.shutdown(socket.SHUT_WR)
                wire.rest()
        except TimeoutError:
            raise
        except OSError:
            pass  # it had enough
    assert process.poll() is None
    assert _answers(port)
    wait_for(lambda: descriptors(process.pid) <= before)
