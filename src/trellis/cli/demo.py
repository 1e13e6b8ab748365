# SPDX-License-Identifier: Apache-2.0
"""The demo: launch the repository, ask one question, stream another, show how fast, stop."""

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from trellis.cli.launch import preflight
from trellis.demo.repository import make_repository
from trellis.errors import TrellisError
from trellis.preflight import Listening
from trellis.preflight.repository import QUESTION, read_repository
from trellis.ranks.options import RankOptions
from trellis.repository.manifest import embedding_names, model_names
from trellis.server.ports import check_ports
from trellis.server.process import Server
from trellis.server.readiness import wait_with_progress
from trellis.server.settings import ServerFailed, ServerSettings
from trellis.server.signals import stop_signals
from trellis.server.triton import serving_python

console = Console(highlight=False)
KOREAN = "Repeat after me: 안녕하세요 세계"
LOG = Path("triton_log.txt")


def chat(question: str) -> str:
    """The prompt in the form that SmolLM2-Instruct was trained on."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def ask(url: str, question: str) -> None:
    """One question through /generate: the whole answer at once."""
    body = {
        "text_input": chat(question),
        "parameters": {"max_tokens": 64, "return_num_output_tokens": True},
    }
    begin = time.perf_counter()
    with httpx.Client(trust_env=False, timeout=120) as client:  # no proxy to this machine
        response = client.post(f"{url}/v2/models/ensemble/generate", json=body)
    seconds = time.perf_counter() - begin
    answer = _checked(response.status_code, response.json())
    tokens = answer["num_output_tokens"]
    console.print(f"[bold]generate[/]         {question}")
    console.print(f"                 {answer['text_output'].strip()}", style="cyan", markup=False)
    console.print(f"                 [dim]{tokens} tokens, {tokens / seconds:.0f} tokens/s[/]\n")


def stream(url: str, question: str) -> None:
    """One question through /generate_stream: the answer as it is made."""
    body = {
        "text_input": chat(question),
        "stream": True,
        "parameters": {"max_tokens": 64, "return_num_output_tokens": True},
    }
    console.print(f"[bold]generate_stream[/]  {question}\n                 ", end="")
    begin = time.perf_counter()
    first = tokens = 0.0
    for chunk in events(f"{url}/v2/models/ensemble/generate_stream", body):
        first = first or time.perf_counter() - begin
        tokens += chunk["num_output_tokens"]
        console.print(chunk["text_output"], end="", style="cyan", markup=False)
    seconds = time.perf_counter() - begin
    console.print(
        f"\n                 [dim]{tokens:.0f} tokens, {tokens / seconds:.0f} tokens/s,"
        f" first token after {first * 1000:.0f} ms[/]\n"
    )


def events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream."""
    with (
        httpx.Client(trust_env=False, timeout=120) as client,
        client.stream("POST", url, json=body) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield _checked(response.status_code, json.loads(line[5:]))


def _checked(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    if status != 200 or "error" in answer:
        raise ServerFailed(f"the server answered {status}: {answer.get('error', answer)}")
    return answer


@contextlib.contextmanager
def serving(settings: ServerSettings, stopped: Callable[[], bool]) -> Iterator[Server]:
    """A ready server whose log goes to a file; the file's end is shown if it fails."""
    with LOG.open("wb") as output, Server(settings, output) as server:
        try:
            seconds = wait_with_progress(server, console, stopped)
            if seconds is not None:
                console.print(f"tritonserver is ready after {seconds:.1f} s (its log: {LOG})\n")
            yield server
        except ServerFailed:
            lines = [
                line for line in LOG.read_text(errors="replace").splitlines() if "rror" in line
            ]
            console.print("\n".join(lines[-15:]), style="red", markup=False)
            raise


def serve(server: Server, settings: ServerSettings, stopped: Callable[[], bool]) -> None:
    """Show what to paste, and the page; then stay until Ctrl-C."""
    url = settings.url.replace("127.0.0.1", "localhost")
    console.print("Ask it:\n")
    for path, body in questions(settings.model_repo, serving_python()):
        print(f"{shlex.join(['curl', '-X', 'POST', url + path, '-d', json.dumps(body)])}\n")
    if settings.page and server.gateway is not None:
        console.print(f"Or open {url}/ in a browser. ", end="")
    console.print("Ctrl-C stops it.")
    died = server.watch(stopped)
    if died:
        server.stop(grace=0)
        raise ServerFailed(f"{died}; stopped the server")


def questions(model_repo: Path, python: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each model a path and a body to POST there, in the model's own chat form if it has one.

    `python`: the interpreter whose packages its tokenizer is loaded with.
    """
    for name in model_names(model_repo):
        facts = read_repository(model_repo, python, name).tokenizer
        body = {"text_input": facts.get("chat", QUESTION), "parameters": {"max_tokens": 64}}
        yield f"/v2/models/{name}/generate", body
    for name in embedding_names(model_repo):
        yield "/v1/embeddings", {"model": name, "input": QUESTION}


def main(
    model_repo: Annotated[
        Path | None,
        typer.Option(
            "--model_repo",
            "--model-repo",
            help="a repository to serve; default: smollm2-repo, made here with its engine",
        ),
    ] = None,
    http_port: Annotated[int, typer.Option("--http_port")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc_port")] = 8001,
    metrics_port: Annotated[int, typer.Option("--metrics_port")] = 8002,
    stay: Annotated[bool, typer.Option("--serve", help="stay until Ctrl-C")] = False,
) -> None:
    """Show a real model answering through a real Triton server."""
    try:
        repository = make_repository(Path()) if model_repo is None else model_repo
        settings = ServerSettings(repository, http_port, grpc_port, metrics_port)
        listening = Listening.of(settings)
        if stay:
            preflight(settings, RankOptions(1), no_mpi=False, listening=listening)
        else:
            check_ports(listening.places)
        # The signals are held from before the server starts until it is gone.
        with stop_signals() as signals, serving(settings, lambda: bool(signals)) as server:
            if stay and not signals:
                serve(server, settings, lambda: bool(signals))
            for show, question in () if stay else ((ask, QUESTION), (stream, KOREAN)):
                if not signals:
                    show(settings.url, question)
        console.print("stopped")
        if signals and not stay:
            raise typer.Exit(130)
    except TrellisError as error:
        print(f"demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
