# SPDX-License-Identifier: Apache-2.0
"""A server that is asked to stop lets nobody in, and ends what is in flight, within a time."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as triton

from support.launched import Launched
from support.load import ENSEMBLE, ask
from support.serving import serve
from trellis.grpc_client import generate, texts

PROMPT = "Once upon a time"
LONG = {"text_input": PROMPT, "end_id": -1, "stream": True}
TOKENS = 400


class Stream:
    """A stream that is read on a thread."""

    def __init__(self, launched: Launched, tokens: int, grpc: bool = False) -> None:
        self.text, self.error = "", ""
        self.begun = threading.Event()
        target = self._grpc if grpc else self._http
        self._thread = threading.Thread(target=target, args=(launched, tokens), daemon=True)
        self._thread.start()
        assert self.begun.wait(60)

    def end(self) -> "Stream":
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self

    def _http(self, launched: Launched, tokens: int) -> None:
        url = f"{launched.url}{ENSEMBLE}/generate_stream"
        with httpx.stream("POST", url, json=LONG | {"max_tokens": tokens}, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    self.text += event.get("text_output", "")
                    self.error += event.get("error", "")
                    self.begun.set()

    def _grpc(self, launched: Launched, tokens: int) -> None:
        values = {"stream": True, "end_id": -1, "max_tokens": tokens}
        with triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as client:
            for text in texts(generate(client, [PROMPT.encode()], values, timeout=60)):
                self.text += text
                self.begun.set()


@contextmanager
def launch(repo: Path, folder: Path, *arguments: str) -> Iterator[Launched]:
    with serve(repo, folder, *arguments, launcher=True) as launched:
        yield launched


@pytest.mark.promise("draining")
def test_what_is_in_flight_ends_whole_and_nothing_new_begins(
    demo_repo: Path, tmp_path: Path
) -> None:
    with launch(demo_repo, tmp_path, "--drain_timeout", "60") as launched:
        alone = Stream(launched, TOKENS).end()
        streams = [Stream(launched, TOKENS), Stream(launched, TOKENS, grpc=True)]
        launched.process.send_signal(signal.SIGTERM)
        wait_unready(launched)
        new = httpx.post(f"{launched.url}{ENSEMBLE}/generate", json=LONG | {"stream": False})
        assert (new.status_code, new.headers["retry-after"]) == (503, "1")
        assert "stopping" in new.json()["error"]
        refused = ask(launched.url, f"127.0.0.1:{launched.grpc}", "horse", "grpc")
        assert "the server is stopping" in refused.error
        assert httpx.get(f"{launched.url}/v2/health/live").status_code == 200
        for stream in streams:
            assert (stream.end().text, stream.error) == (alone.text, "")
        assert launched.process.wait(20) == 0
        launched.assert_nothing_left()


def test_what_takes_longer_is_cut_with_an_error(demo_repo: Path, tmp_path: Path) -> None:
    with launch(demo_repo, tmp_path, "--drain_timeout", "1") as launched:
        stream = Stream(launched, 7000)
        begin = time.monotonic()
        launched.process.send_signal(signal.SIGTERM)
        assert "the server was stopped before the answer was complete" in stream.end().error
        assert launched.process.wait(20) == 0
        assert time.monotonic() - begin < 1 + 5 + 5
        launched.assert_nothing_left()


def test_a_second_signal_ends_the_waiting(demo_repo: Path, tmp_path: Path) -> None:
    with launch(demo_repo, tmp_path, "--drain_timeout", "600", "--exit_timeout", "1") as launched:
        stream = Stream(launched, 7000)
        launched.process.send_signal(signal.SIGINT)
        wait_unready(launched)
        launched.process.send_signal(signal.SIGINT)
        assert launched.process.wait(15) == 0
        assert stream.end().error
        launched.assert_nothing_left()


def wait_unready(launched: Launched) -> None:
    end = time.monotonic() + 10
    while is_ready(launched):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_ready(launched: Launched) -> bool:
    """Whether it says so."""
    return httpx.get(f"{launched.url}/v2/health/ready").status_code == 200
