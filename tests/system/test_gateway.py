"""The gateway with the launcher and a real engine: hanging up frees a slot, a death ends all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from support.asking import ENSEMBLE, ask, refused
from support.launched import LAUNCHER, Launched
from support.probes import add_probes, state
from support.serving import LOG, serve
from support.waiting import wait_for
from trellis.server.gateway_settings import missing_package
from trellis.server.settings import ServerSettings, has_gateway
from trellis.soak.measure import stuck

LONG = {"text_input": "Once upon a time", "max_tokens": 6000, "end_id": -1}
FRONT = "trellis.gateway"


@pytest.fixture(scope="module")
def probed(demo_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that shows what its engine holds: its URL and repository."""
    repo = tmp_path_factory.mktemp("probed") / "triton_model_repo"
    subprocess.run(["cp", "-r", str(demo_repo), str(repo)], check=True)
    add_probes(repo)
    with serve(repo, tmp_path_factory.mktemp("server")) as server:
        yield server.settings.url, repo


def hang_up(url: str, kind: str, chunks: int) -> None:
    """Ask, read as many chunks, and leave."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({**LONG, "stream": kind == "generate_stream"}).encode()
    head = (
        f"POST {ENSEMBLE}/{kind} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(head.encode() + body)
        for _ in range(chunks):
            assert client.recv(65536)
        if not chunks:
            time.sleep(0.5)


@pytest.mark.promise("disconnects")
@pytest.mark.parametrize(("kind", "chunks"), [("generate_stream", 3), ("generate", 0)])
def test_a_client_that_hangs_up_frees_its_place_in_the_engine(
    probed: tuple[str, Path], kind: str, chunks: int
) -> None:
    url, repo = probed
    hang_up(url, kind, chunks)
    wait_for(lambda: state(repo)["answers"] == 0, 15)  # 6,000 tokens take far longer
    with httpx.Client(base_url=url, timeout=60) as http:
        assert ask(http, "The capital of France is", max_tokens=4)["text_output"]


def test_many_that_hang_up_leave_the_others_their_texts(probed: tuple[str, Path]) -> None:
    url, repo = probed
    with httpx.Client(base_url=url, timeout=120) as http:
        expected = ask(http, "The capital of France is", max_tokens=8)["text_output"]
        for _ in range(20):
            hang_up(url, "generate_stream", 1)
        wait_for(lambda: state(repo)["answers"] == 0, 30)
        assert ask(http, "The capital of France is", max_tokens=8)["text_output"] == expected


def test_triton_finishes_every_request_whose_client_hung_up(
    demo_repo: Path, tmp_path: Path
) -> None:
    """It never does when it learns of it itself, and then waits for them when it is stopped."""
    with serve(demo_repo, tmp_path) as run:
        url = run.settings.url
        assert run.gateway is not None
        front = psutil.Process(run.gateway.pid)
        with httpx.Client(base_url=url, timeout=60) as http, ThreadPoolExecutor(8) as pool:
            assert ask(http, "Hello", max_tokens=2)["text_output"]
            before = front.num_fds()
            jobs = [("generate_stream", number % 4) for number in range(80)] + [("generate", 0)] * 8
            list(pool.map(lambda job: hang_up(url, *job), jobs))
            wait_for(lambda: front.num_fds() <= before, 20)  # far less than DRAIN_SECONDS
            assert ask(http, "Hello", max_tokens=2)["text_output"]
        run.stop()
    said = (tmp_path / LOG).read_text(errors="replace")
    assert "Found 0 model versions that have in-flight inferences" in said
    assert stuck(said, 0) == []


def test_wrong_json_is_a_400_that_names_the_field(http: httpx.Client) -> None:
    message = refused(http, {"text_input": "Hi", "max_tokens": "x"})
    assert message == (
        'max_tokens: "x" is not a whole number; send a whole number, or leave the field out'
    )
    assert "did you mean max_tokens?" in refused(http, {"text_input": "Hi", "max_tokns": 4})


@pytest.mark.parametrize(
    "more", [{"stream": True}, {"stream": [True]}, {"parameters": {"stream": True}}], ids=str
)
def test_a_stream_by_generate_is_refused_before_anything_runs(
    probed: tuple[str, Path], more: dict[str, object]
) -> None:
    url, repo = probed
    with httpx.Client(base_url=url, timeout=60) as http:
        begin = time.monotonic()
        message = refused(http, LONG | more)
    assert message == (
        "stream: /generate gives one answer; send it to /generate_stream, or leave stream out"
    )
    assert time.monotonic() - begin < 5  # 6,000 tokens take far longer
    assert state(repo)["answers"] == 0


@pytest.fixture
def launched(demo_repo: Path, tmp_path: Path) -> Iterator[Launched]:
    with serve(demo_repo, tmp_path, launcher=True) as running:
        yield running


def front_of(launcher: Launched) -> psutil.Process:
    (front,) = (process for process in launcher.tree if FRONT in process.cmdline())
    return front


def test_a_killed_front_ends_the_server_with_a_reason(launched: Launched) -> None:
    front_of(launched).kill()
    assert launched.process.wait(15) == 1
    assert "the HTTP gateway (pid" in launched.log()
    launched.assert_nothing_left()


def test_the_front_does_not_outlive_a_killed_launcher(launched: Launched) -> None:
    front = front_of(launched)
    os.kill(launched.process.pid, signal.SIGKILL)
    launched.process.wait()
    psutil.wait_procs([front], timeout=15)
    assert not front.is_running()


def test_without_a_front_http_goes_straight_to_triton(demo_repo: Path, tmp_path: Path) -> None:
    with serve(demo_repo, tmp_path, "--no-http_gateway", launcher=True) as launcher:
        assert not any(FRONT in process.cmdline() for process in launcher.tree)
        with httpx.Client(base_url=launcher.url, timeout=60) as http:
            assert ask(http, "Hello", max_tokens=2)["text_output"]
        assert launcher.stop() == 0


def test_where_the_package_is_missing_one_line_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_repo: Path
) -> None:
    assert missing_package() == ""
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert not has_gateway(ServerSettings(demo_repo))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install httptools uvloop" in said
    assert not has_gateway(ServerSettings(demo_repo, serves=False))
    assert capsys.readouterr().err == ""


def test_the_launcher_has_the_switch() -> None:
    shown = subprocess.run(
        [sys.executable, str(LAUNCHER), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout
    assert "--no-http_gateway" in shown
