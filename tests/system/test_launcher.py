"""The launcher: it says what is wrong before it starts, and leaves nothing when it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support.asking import ENSEMBLE, ask
from support.launched import LAUNCHER, Launched
from support.paths import ROOT
from support.serving import serve
from trellis.server.folder import LOCK, sweep
from trellis.server.ports import free_ports


@pytest.fixture
def launched(demo_repo: Path, tmp_path: Path) -> Iterator[Launched]:
    with serve(demo_repo, tmp_path, launcher=True) as running:
        yield running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_whole_tree_within_ten_seconds(
    launched: Launched, number: signal.Signals
) -> None:
    assert len(launched.tree) >= 4  # tritonserver and three models
    begin = time.monotonic()
    launched.process.send_signal(number)
    assert launched.process.wait(12) == 0
    assert time.monotonic() - begin < 10
    launched.assert_nothing_left()


def test_an_address_opens_http_and_neither_grpc_nor_metrics(
    demo_repo: Path, tmp_path: Path
) -> None:
    with serve(demo_repo, tmp_path, "--address", "0.0.0.0", launcher=True) as launched:
        ports = (launched.http, launched.grpc, launched.metrics)
        assert [_answers("127.0.0.1", port) for port in ports] == [True, True, True]
        assert [_answers("127.0.0.2", port) for port in ports] == [True, False, False]


def _answers(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


@pytest.mark.promise("nothing left")
def test_a_signal_during_a_stream_stops_just_as_well(launched: Launched) -> None:
    body = {"text_input": "Once", "max_tokens": 5000, "end_id": -1, "stream": True}
    with (
        httpx.Client(timeout=20) as client,
        client.stream("POST", f"{launched.url}{ENSEMBLE}/generate_stream", json=body) as response,
    ):
        assert next(response.iter_raw())
        begin = time.monotonic()
        launched.process.terminate()
        assert launched.process.wait(12) == 0
        assert time.monotonic() - begin < 10
    launched.assert_nothing_left()


def test_the_server_does_not_outlive_a_killed_launcher(launched: Launched) -> None:
    launched.process.kill()
    launched.process.wait()
    _, alive = psutil.wait_procs(launched.tree, timeout=15)
    assert alive == []


def test_what_a_killed_launcher_left_goes_with_the_next_launch(
    launched: Launched, demo_repo: Path, tmp_path: Path
) -> None:
    (left,) = launched.temporary.iterdir()
    os.utime(left / LOCK, (0, 0))  # it is long ago
    assert sweep(launched.temporary) == []  # its server runs
    launched.process.kill()
    launched.process.wait()
    psutil.wait_procs(launched.tree, timeout=15)
    with serve(demo_repo, tmp_path, launcher=True) as following:  # in the only folder there is
        assert not left.exists()
        assert list(Path("/dev/shm").glob(f"{left.name}*")) == []
        assert following.stop() == 0
    following.assert_nothing_left()


def test_models_do_not_outlive_a_server_that_was_killed_under_load(launched: Launched) -> None:
    """With the launcher killed too, nobody is left to end them: the kernel does."""
    body = {"text_input": "Once", "max_tokens": 5000, "end_id": -1, "stream": True}
    with (
        httpx.Client(timeout=20) as client,
        client.stream("POST", f"{launched.url}{ENSEMBLE}/generate_stream", json=body) as response,
    ):
        assert next(response.iter_raw())
        launched.process.kill()
        for process in launched.tree:
            if process.name() == "tritonserver":
                process.kill()
        _, alive = psutil.wait_procs(launched.tree, timeout=15)
    assert alive == []


@pytest.mark.promise("nothing left")
@pytest.mark.parametrize("model", ["tensorrt_llm", "postprocessing"])
def test_a_killed_model_process_is_an_error_for_its_stream_and_ends_the_server(
    launched: Launched, model: str
) -> None:
    """Triton alone would leave the client waiting for ever and go on saying that it is ready."""
    body = {"text_input": "Once", "max_tokens": 5000, "end_id": -1, "stream": True}
    failed = threading.Event()

    def read() -> None:
        try:
            with (
                httpx.Client(timeout=30) as client,
                client.stream(
                    "POST", f"{launched.url}{ENSEMBLE}/generate_stream", json=body
                ) as response,
            ):
                for data in response.iter_raw():
                    started.set()
                    if b'"error"' in data:
                        failed.set()
        except httpx.TransportError:
            failed.set()

    started = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(20)
    launched.stub(model).kill()
    reader.join(10)
    assert not reader.is_alive(), "the client hangs"
    assert failed.is_set()
    assert launched.process.wait(10) == 1
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{launched.url}/v2/health/ready")
    assert f"the process of {model}" in launched.log()
    launched.assert_nothing_left()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(LAUNCHER), *arguments], capture_output=True, text=True, timeout=60
    )


def test_a_taken_port_is_named_with_who_has_it(demo_repo: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--model_repo", str(demo_repo), "--http_port", str(port))
    assert result.returncode == 1
    assert f"--http_port {port} is taken by" in result.stderr
    assert f"(pid {os.getpid()})" in result.stderr


def test_two_equal_ports_are_refused(demo_repo: Path) -> None:
    port = str(free_ports(1)[0])
    result = run("--model_repo", str(demo_repo), "--http_port", port, "--grpc_port", port)
    assert result.returncode == 1
    assert "must differ" in result.stderr


def test_a_server_binary_that_is_not_there_is_named(demo_repo: Path) -> None:
    ports = [str(port) for port in free_ports(3)]
    result = run(
        "--model_repo", str(demo_repo), "--tritonserver", "/no/such/tritonserver",
        "--http_port", ports[0], "--grpc_port", ports[1], "--metrics_port", ports[2],
    )  # fmt: skip
    assert result.returncode == 1
    assert "--tritonserver /no/such/tritonserver: no such file" in result.stderr


def test_a_verbose_log_goes_to_the_file_asked_for(demo_repo: Path, tmp_path: Path) -> None:
    options = ("--no-short-way", "--log", "--log-file", str(tmp_path / "triton.txt"))
    with serve(demo_repo, tmp_path, *options, launcher=True) as launcher:
        with httpx.Client(base_url=launcher.url, timeout=60) as http:
            assert ask(http, "Hello", max_tokens=2)["text_output"]
        assert launcher.stop() == 0
    log = (tmp_path / "triton.txt").read_text()
    assert "HTTP request: 2 /v2/models/tensorrt_llm/generate" in log


def test_options_of_tritonserver_itself_are_passed_on(demo_repo: Path, tmp_path: Path) -> None:
    options = ("--no-check", "--", "--log-info=0", "--id", "mine")
    with serve(demo_repo, tmp_path, *options, launcher=True) as launcher:
        assert httpx.get(f"{launcher.url}/v2").json()["name"] == "mine"
        assert launcher.stop() == 0
    assert "Started HTTPService" not in launcher.log()


@pytest.mark.parametrize("page", [True, False])
def test_the_page_is_at_the_address_that_is_printed_unless_it_is_left_out(
    demo_repo: Path, tmp_path: Path, page: bool
) -> None:
    options = () if page else ("--no-page",)
    with serve(demo_repo, tmp_path, *options, launcher=True) as launcher:
        answer = httpx.get(f"{launcher.url}/")
        assert launcher.stop() == 0
    assert answer.status_code == (200 if page else 404)
    assert (f"a page to try it: {launcher.url}/" in launcher.log()) == page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--", "--http-port=1"], "--http-port: the launcher sets it; use --http_port"),
        (["stray"], "stray: no option; tritonserver's own come after --"),
    ],
)
def test_an_option_that_cannot_be_passed_on_is_named(
    demo_repo: Path, options: list[str], message: str
) -> None:
    result = run("--model_repo", str(demo_repo), *options)
    assert result.returncode == 1
    assert message in result.stderr


def test_make_launch_passes_options_on() -> None:
    command = ["make", "-n", "launch", "ARGS=--address 0.0.0.0 --no-check -- --log-info=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "--metrics_port 8002 --address 0.0.0.0 --no-check -- --log-info=0" in done.stdout
