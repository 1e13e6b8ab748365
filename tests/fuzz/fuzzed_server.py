"""A server under fuzz: started, watched, started anew should a request have ended it."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fuzz.batches import SEED
from support.engines import read_demo_engine
from support.probes import add_probes, settled
from support.serving import LOG, serve
from trellis.demo.repository import PARSER
from trellis.repository.assemble import Plan, assemble
from trellis.repository.parser_formats import find_parser
from trellis.server.process import Server

KNOWN = {"text_input": "The capital of France is", "max_tokens": 8}
GAUGE = re.compile(r"^trellis_requests_in_flight\{.*\} (.+)$", re.MULTILINE)
# What the models log, or answer, about faults of their own: no input may bring that about.
OWN_FAULTS = (
    "Traceback",
    "could not be read",
    "could not be prepared",
    "could not be decoded",
    "could not be sent",
    "could not take its tokens",
    "the engine failed",
    "the engine refused the request",
    "the answer failed",
    "the tokenizer failed",
    "is not healthy",
)


@dataclass
class Running:
    """One server process and the thread that ends it if a model's process dies."""

    server: Server
    log: Path
    died: str = ""
    over: bool = False
    seen: int = 0  # bytes of the log that were looked at

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        """As the launcher does."""
        self.died = self.server.watch(lambda: self.over) or ""
        if self.died:
            self.server.stop(grace=0)


class FuzzedServer:
    """The demo engine's server; after every batch of requests it has to be as before."""

    def __init__(self, repo: Path, folder: Path, probed: bool) -> None:
        """`probed`: whether the models have windows, see support.probes."""
        self.repo = repo
        self.probed = probed
        self.folder = folder
        self.starts = 0
        self.servers = ExitStack()
        self.running = self._start()
        self.expected = self._known_text()

    def _start(self) -> Running:
        self.starts += 1
        folder = self.folder / str(self.starts)
        server = self.servers.enter_context(serve(self.repo, folder))
        running = Running(server, folder / LOG)
        running.thread.start()
        return running

    def ensure(self) -> None:
        """Start anew if the last batch ended the server."""
        if self.running.died:
            self.stop()
            self.running = self._start()

    def stop(self) -> None:
        """End the server and its watch."""
        self.running.over = True
        self.running.thread.join()
        self.servers.close()

    @property
    def url(self) -> str:
        """Where HTTP clients go."""
        return self.running.server.settings.url

    @property
    def has_gateway(self) -> bool:
        """Whether HTTP clients come to the gateway, not to Triton."""
        return self.running.server.gateway is not None

    @property
    def grpc(self) -> str:
        """Where gRPC clients go."""
        return f"127.0.0.1:{self.running.server.settings.grpc_port}"

    def check(self, batch: list[Any]) -> None:
        """Fail, naming the batch, unless all is as it was before it."""
        told = "\n".join(map(repr, batch))
        time.sleep(0.05)  # the watch notices a death by itself, but not at once
        assert not self.running.died, f"{self.running.died} by one of:\n{told}"
        assert self._known_text() == self.expected, f"another text after:\n{told}"
        left = settled(self.repo) if self.probed else self._in_flight()
        assert not left, f"{left} left by one of:\n{told}"
        faults = self._faults()
        assert not faults, f"logged: {faults}\nby one of:\n{told}"

    def _known_text(self) -> str:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            response = client.post("/v2/models/ensemble/generate", json=KNOWN)
        assert response.status_code == 200, response.text
        text: str = response.json()["text_output"]
        return text

    def _in_flight(self, seconds: float = 10) -> float:
        """What the gauge of requests says when nothing should be left; waits for them to end."""
        url = f"http://127.0.0.1:{self.running.server.settings.metrics_port}/metrics"
        end = time.monotonic() + seconds
        while True:
            found = GAUGE.findall(httpx.get(url).text)
            assert found, "no gauge of requests"
            left = sum(map(float, found))
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)

    def _faults(self) -> str:
        """What the log says of faults since it was last looked at."""
        with self.running.log.open("rb") as log:
            log.seek(self.running.seen)
            new = log.read()
        self.running.seen += len(new)
        lines = new.decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if any(fault in line for fault in OWN_FAULTS))


@contextmanager
def fuzzed_server(
    demo: tuple[Path, Path], folder: Path, probed: bool = True
) -> Iterator[FuzzedServer]:
    """A server of the demo engine; one that is probed is asked by Triton's HTTP port alone."""
    engine, tokenizer = demo
    parser = find_parser(PARSER, tokenizer)
    plan = Plan(read_demo_engine(engine), "gpt2", tokenizer, parser=parser)
    assemble(plan, folder / "repo")
    if probed:
        add_probes(folder / "repo")
    server = FuzzedServer(folder / "repo", folder, probed)
    try:
        yield server
    finally:
        server.stop()
        print(f"\nfuzz: seed {SEED}, {server.starts - 1} restarts")
