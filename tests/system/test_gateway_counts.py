"""HTTP requests count under the ensemble that was asked, whichever way they were answered."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.gateway_wire import ENSEMBLE, Wire, post, stream, wait_for
from support.standin import Script
from support.standin_server import Served, serve
from trellis.gateway.counts import TELL_SECONDS, Counts
from trellis.ipc.sockets import HTTP_COUNTS, model_address
from trellis.server.process import Server
from trellis.tokenizers import load

ASKED = {"text_input": "Say it", "max_tokens": 4}


@pytest.fixture(scope="module", params=["python", "tensorrtllm"])
def running(request: pytest.FixtureRequest) -> Server:
    """A server with an engine of ours, or with TensorRT-LLM's own."""
    made: Server = request.getfixturevalue("server" if request.param == "python" else "standin")
    return made


@pytest.fixture(scope="module")
def standin(
    tmp_path_factory: pytest.TempPathFactory, standin_library: Path, llama_folder: Path
) -> Iterator[Server]:
    scripts = [Script(answer=load("llama", llama_folder).encode("Hello")[1:])]
    folder = tmp_path_factory.mktemp("counts")
    served: Served
    with serve("1.x", folder, standin_library, llama_folder, scripts) as served:
        yield served.server


def answered(server: Server) -> float:
    """By the metrics page: requests for `ensemble`, by all ways."""
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    names = ("trellis_http_requests_total", "nv_inference_request_success")
    lines = [line for line in page.splitlines() if line.startswith(names)]
    return sum(float(line.split()[-1]) for line in lines if 'model="ensemble"' in line)


def test_every_way_counts_once(running: Server) -> None:
    version = post(ASKED, target=f"{ENSEMBLE}/versions/1/generate")  # goes through `ensemble`
    time.sleep(2 * TELL_SECONDS)  # what other tests asked is told, and on Triton's page
    before = answered(running)
    with Wire(running.settings.http_port) as wire:
        for request in (post(ASKED), stream(ASKED), version):
            assert wire.send(request).answer().status == 200
        assert wire.send(post({**ASKED, "top_p": 7})).answer().status == 400
    wait_for(lambda: answered(running) == before + 3)


def test_what_nobody_takes_is_told_again_and_each_model_hears_its_own() -> None:
    async def run() -> None:
        counts = Counts(os.getpid(), asyncio.get_running_loop())
        counts.add("first", "a")
        counts.add("first", "a")
        counts.add("other", "c")
        counts._tell()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(model_address(HTTP_COUNTS, "first", os.getpid()))
            counts.add("first", "b")
            counts._tell_again()
            assert json.loads(listener.recv(100)) == {"a": 2, "b": 1}
            counts.close()
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.recv(100)

    asyncio.run(run())
