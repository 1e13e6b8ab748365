# SPDX-License-Identifier: Apache-2.0
"""Soak a server: mixed traffic for a long time, every text checked, then what it still holds.

Exit status 1 if a text was wrong, a request failed or hung, or something leaked.
"""

import functools
import math
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console

from trellis.demo.repository import make_repository
from trellis.server.ports import free_ports
from trellis.server.process import Server
from trellis.server.restarts import load
from trellis.server.settings import ServerSettings
from trellis.server.shared_memory import FOLDER as SHARED_MEMORY
from trellis.soak.access import NO_ACCESS, Access, NoCertificate
from trellis.soak.measure import Held, grown, look, settle, stuck, touch
from trellis.soak.prompts import decoded, right_texts
from trellis.soak.report import show
from trellis.soak.traffic import ENSEMBLE, HANG_SECONDS, Traffic

# Of the demo engine's cache: soon used up, so that what grows later is a leak.
SETTINGS = {"max_tokens_in_paged_kv_cache": "16384"}
LOOKS = 60  # at what is held, in all the time
WARM_SHARE, WARM_SECONDS = 0.2, 60.0  # of the time, at most: caches fill before the first look


def main(
    seconds: Annotated[float, typer.Option(min=1)] = 1800,
    clients: Annotated[int, typer.Option(min=1)] = 16,
    seed: Annotated[int, typer.Option(help="which requests come when")] = 1,
    model_repo: Annotated[
        Path | None,
        typer.Option(
            "--model_repo",
            "--model-repo",
            help="of a Python engine; default: the demo engine's, made anew",
        ),
    ] = None,
    keys: Annotated[
        bool,
        typer.Option("--keys/--no-keys", help="whether clients need an API key, and speak TLS"),
    ] = True,
) -> None:
    """Soak the demo engine, or a repository of your own."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        repo = model_repo or make_repository(Path(folder), SETTINGS)
        log = Path(folder) / "triton.log"
        try:
            access = Access.make(Path(folder)) if keys else NO_ACCESS
        except NoCertificate as error:
            console.print(f"[red]{error}")
            raise typer.Exit(1) from None
        problems = soak(console, repo, log, seconds, clients, seed, access)
        if problems:
            console.print("the end of the server's log:", log.read_text(errors="replace")[-3000:])
    for problem in problems:
        console.print(f"[red]{problem}")
    if problems:
        raise typer.Exit(1)
    console.print("[green]every text right, nothing leaked, nothing hung")


def soak(
    console: Console,
    repo: Path,
    log: Path,
    seconds: float,
    clients: int,
    seed: int,
    access: Access = NO_ACCESS,
) -> list[str]:
    """Run it; what was wrong, nothing if all was well."""
    http, grpc, metrics = free_ports(3)
    with log.open("wb") as output:
        settings = ServerSettings(
            repo, http, grpc, metrics, access=access.settings, expose_inner_models=True
        )
        server = Server(settings, output)
    over = threading.Event()
    died: list[str] = []
    try:
        load(server)
        watch = threading.Thread(target=_watch, args=(server, over, died), daemon=True)
        watch.start()
        address = f"127.0.0.1:{grpc}"
        asking = access.http(settings.url, HANG_SECONDS)
        right = right_texts(lambda text, tokens: ask(asking, text, tokens))
        problems = [
            f"{script}: {right[script].text!r} is not the decoder's text of its ids, {text!r}"
            for script, text in decoded(repo, access.grpc(address), right).items()
            if text != right[script].text
        ]
        touch(server, lambda text: ask(asking, text, 1))
        asking.close()
        traffic = Traffic(settings.url, address, right, clients, seed, access)
        warm = min(seconds * WARM_SHARE, WARM_SECONDS)
        _wait(warm, died)
        start = look(server)
        looks = [(time.monotonic(), start)]
        with console.status(f"soaking for {seconds:.0f} s with {clients} clients"):
            note = functools.partial(_note, looks, server)
            _wait(seconds - warm, died, note, max(seconds / LOOKS, 1))
        hung = traffic.stop()
        settle(server)
        end = look(server)
        over.set()
        watch.join()
        tree = psutil.Process().children(recursive=True)
    finally:
        over.set()
        server.stop()
    left = leftovers(server, tree)
    show(console, traffic.tally, start, end, looks, left)
    problems += [*died, *grown(start, end), *(f"left: {item}" for item in left)]
    problems += stuck(log.read_text(errors="replace"), traffic.tally.cancelled)
    if hung:
        problems.append(f"{hung} clients hang")
    if traffic.tally.faults:
        problems.append(f"{traffic.tally.faults} requests did not end as they had to")
        problems += traffic.tally.examples
    return problems


def ask(http: httpx.Client, text: str, tokens: int) -> tuple[str, list[float]]:
    """A greedy text of so many tokens, and their log probabilities."""
    body = {"text_input": text, "max_tokens": tokens, "end_id": -1, "return_log_probs": True}
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    response.raise_for_status()
    answer = response.json()
    log_probs = answer["output_log_probs"]
    return answer["text_output"], log_probs if isinstance(log_probs, list) else [log_probs]


def leftovers(server: Server, tree: list[psutil.Process]) -> list[str]:
    """Processes and files that outlived the server."""
    _, alive = psutil.wait_procs(tree, timeout=5)
    files = [*SHARED_MEMORY.glob(f"{server.prefix}*"), *([server.folder] * server.folder.exists())]
    return [f"process {process.pid}" for process in alive] + list(map(str, files))


def _watch(server: Server, over: threading.Event, died: list[str]) -> None:
    """End the server if a part of it dies, as the launcher does."""
    reason = server.watch(over.is_set)
    if reason:
        died.append(reason)
        server.stop(grace=0)


def _note(looks: list[tuple[float, Held]], server: Server) -> None:
    looks.append((time.monotonic(), look(server)))


def _wait(
    seconds: float,
    died: list[str],
    look: Callable[[], object] = lambda: None,
    every: float = math.inf,
) -> None:
    """Wait until it is over or a part died, and look from time to time."""
    now = time.monotonic()
    end, due = now + seconds, now + every
    while now < end and not died:
        if now >= due:
            look()
            due = now + every
        time.sleep(0.2)
        now = time.monotonic()
