"""Triton's wake-up sockets: widened from outside, and no stream over HTTP is cut any more."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from support.standin import Script
from support.standin_server import Served, serve
from trellis.server.wakeup_sockets import ENOUGH, give_room, widen
from trellis.tokenizers import load

TEXT = " ".join(f"w{number}" for number in range(300))
CHILD = """
import socket, sys
left, right = socket.socketpair()
left.setblocking(False)
def fill():
    sent = 0
    try:
        while sent < 5000:
            left.send(b"x" * 24)
            sent += 1
    except BlockingIOError:
        pass
    print(sent, flush=True)
fill()
sys.stdin.readline()
fill()
"""


def widened(pid: int) -> int:
    try:
        return widen(pid)
    except OSError as error:
        pytest.skip(f"a process may not look at its child's sockets here: {error}")


def test_a_pair_of_sockets_of_another_process_takes_more_messages() -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        before = int(child.stdout.readline())
        room = widened(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        more = int(child.stdout.readline())
    assert 0 < before < 1000
    assert room > 212_992
    assert more >= before


def test_a_process_that_is_gone_is_no_error_of_the_launcher(
    capsys: pytest.CaptureFixture[str],
) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert give_room(child.pid) == 0
    assert "a stream may be cut" in capsys.readouterr().err


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, standin_library: Path, llama_folder: Path
) -> Iterator[Served]:
    """An engine that answers everything at once, with TEXT."""
    answer = load("llama", llama_folder).encode(TEXT)[1:]
    folder = tmp_path_factory.mktemp("served")
    scripts = [Script(answer=answer)]
    with serve("1.x", folder, standin_library, llama_folder, scripts) as running:
        yield running


@pytest.fixture(scope="module")
def url(served: Served) -> str:
    """Triton's own HTTP port, whatever may stand before it."""
    command = psutil.Process(served.server.process.pid).cmdline()
    (port,) = (word for word in command if word.startswith("--http-port="))
    return f"http://127.0.0.1:{port.partition('=')[2]}/v2/models/ensemble"


def stream(url: str, name: str) -> str:
    body = {"id": name, "text_input": "Tell me", "max_tokens": 2000, "stream": True}
    with (
        httpx.Client(timeout=120) as client,
        client.stream("POST", f"{url}/generate_stream", json=body) as response,
    ):
        events = (line for line in response.iter_lines() if line)
        return "".join(json.loads(event[6:])["text_output"] for event in events)


def test_streams_stay_whole_while_another_client_holds_triton_s_http_threads(
    served: Served, url: str
) -> None:
    """Without the room, 13 of 48 such streams never ended and 12 lost their end."""
    if widened(served.server.process.pid) < ENOUGH:
        pytest.skip("net.core.wmem_max is too small here, and this user may not exceed it")
    huge = json.dumps({"text_input": "x" * (100 << 20), "max_tokens": 4}).encode()
    stop = threading.Event()
    refused: list[int] = []

    def hold() -> None:
        with httpx.Client(timeout=120) as client:
            while not stop.is_set():
                answer = client.post(f"{url}/generate", content=huge)
                assert "max_prompt_bytes" in answer.text
                refused.append(answer.status_code)

    with ThreadPoolExecutor(18) as pool:
        holding = [pool.submit(hold) for _ in range(2)]
        texts = list(pool.map(lambda n: stream(url, f"s{n}"), range(32)))
        stop.set()
        for held in holding:
            held.result()
    assert refused
    assert texts == [TEXT] * 32
