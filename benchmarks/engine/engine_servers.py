# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared: Trellis as it is launched, and vLLM's own API server.

Each is a tree of processes. What is compared is the CPU of all that is not the library's engine
core: for Trellis the engine's process, tritonserver, the models' processes and the gateway; for
vLLM the API server. The launcher, which only watches, is left out.
"""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from http_stream import post
from jobs import ID

from trellis.server.numpy2_bridge import STUB
from trellis.server.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "tools" / "launch_triton_server.py"
NO_SHORT_WAY = "--no-short-way"
READY_SECONDS = 300
STOP_SECONDS = 30
CORE, WATCHER = "engine core", "launcher"  # not counted
MEMORY_LINE = re.compile(
    r"(Model loading took|Available KV cache memory|(GPU |CPU )?KV cache size|Maximum concurrency"
    r"|Graph capturing finished|torch\.compile took|compilation.*took).*"
)
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
Text = Callable[[Any], str]


@dataclass
class Running:
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    ready_seconds: float
    grpc: int = 0  # its gRPC port, if it has one

    def names(self) -> dict[int, str]:
        """Its processes: pid -> what each is."""
        root = psutil.Process(self.process.pid)
        named = {}
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                named[process.pid] = name_of(process.cmdline())
        return named

    def memory_lines(self) -> list[str]:
        """What vLLM's log says of memory and of its start."""
        return memory_lines(self.log.read_text(errors="replace"))


def memory_lines(log: str) -> list[str]:
    """Lines of vLLM's log on memory, each once."""
    return list(dict.fromkeys(found[0] for found in MEMORY_LINE.finditer(log)))


def name_of(command: Sequence[str]) -> str:
    """What a process of a server is, by its command line."""
    joined = " ".join(command)
    if joined.startswith(("VLLM::EngineCore", "VLLM::Worker")):
        return CORE
    if len(command) > 1 and command[0].endswith(STUB):
        return Path(command[1]).parent.parent.name
    for part, name in (
        (LAUNCHER.name, WATCHER),
        ("process_main", "engine process"),
        ("trellis.gateway", "gateway"),
        ("api_server", "API server"),
        ("VLLM::APIServer", "API server"),
    ):
        if part in joined:
            return name
    return "tritonserver" if command and command[0].endswith("tritonserver") else "other"


def by_name(cpu: Mapping[int, float], names: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds of each kind of process."""
    found: dict[str, float] = {}
    for pid, seconds in cpu.items():
        found[names[pid]] = found.get(names[pid], 0.0) + seconds
    return found


def outside(named: Mapping[str, float]) -> float:
    """Of these, all but the engine core's and the launcher's."""
    return sum(value for name, value in named.items() if name not in (CORE, WATCHER))


# --- how they are asked -------------------------------------------------------------------------


def trellis_request(text: str, tokens: int, **more: Any) -> bytes:
    """A stream of exactly so many tokens, greedy."""
    values = {"text_input": text, "max_tokens": tokens, "stream": True, "end_id": -1, **more}
    body = json.dumps({"id": ID.decode(), **values}).encode()
    return post("/v2/models/ensemble/generate_stream", body)


def vllm_request(model: str, ids: Sequence[int], tokens: int, **more: Any) -> bytes:
    """The same of vLLM's API server, its prompt as ids."""
    values = {"model": model, "prompt": [*ids], "max_tokens": tokens, "stream": True, **more}
    values |= {"temperature": 0, "ignore_eos": True, "user": ID.decode()}
    return post("/v1/completions", json.dumps(values).encode())


def trellis_text(event: Any) -> str:
    """The text in one event of `ensemble`."""
    return str(event["text_output"])


def vllm_text(event: Any) -> str:
    """The text in one event of a completion."""
    return "".join(str(choice["text"]) for choice in event["choices"])


# --- how they are started -----------------------------------------------------------------------


def knows_short_way() -> bool:
    """Whether this checkout's launcher has the flag that turns the short way off."""
    command = [sys.executable, str(LAUNCHER), "--help"]
    wide = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=wide, check=True)
    return NO_SHORT_WAY in done.stdout.replace("_", "-")


@contextlib.contextmanager
def trellis(repository: Path, log: Path, *options: str) -> Iterator[Running]:
    """A repository, launched as users launch it."""
    http, grpc, metrics = free_ports(3)
    command = [sys.executable, str(LAUNCHER), "--model_repo", str(repository)]
    command += [f"--http_port={http}", f"--grpc_port={grpc}", f"--metrics_port={metrics}"]
    with _started([*command, *options], log, http, "/v2/health/ready") as running:
        running.grpc = grpc
        yield running


@contextlib.contextmanager
def vllm_api(
    checkpoint: Path, tokenizer: Path, log: Path, arguments: Mapping[str, Any]
) -> Iterator[Running]:
    """vLLM's own server; its arguments as AsyncEngineArgs names them."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1"]
    command += [f"--port={port}", f"--model={checkpoint}", f"--tokenizer={tokenizer}"]
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            command.append(f"--{'' if value else 'no-'}{option}")
        else:
            values = value if isinstance(value, list) else [value]
            command += [f"--{option}", *map(str, values)]
    with _started(command, log, port, "/health") as running:
        yield running


@contextlib.contextmanager
def llama_cpp(program: str, model: Path, log: Path, streams: int, size: int) -> Iterator[Running]:
    """llama.cpp's server on a GGUF file; `size`: tokens that all streams have room for."""
    port = free_ports(1)[0]
    command = [program, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--parallel", str(streams), "--ctx-size", str(size), "--no-webui"]
    command += ["--threads", str(len(os.sched_getaffinity(0)))]
    with _started(command, log, port, "/health") as running:
        yield running


@contextlib.contextmanager
def _started(command: Sequence[str], log: Path, port: int, path: str) -> Iterator[Running]:
    """Start a server, wait until a path answers 200, stop it in the end."""
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**ENVIRONMENT, **os.environ},
        )
    try:
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() - begin > READY_SECONDS:
                raise RuntimeError(f"{command} is not ready:\n{_end_of(log)}")
            time.sleep(0.2)
        yield Running(process, port, log, time.monotonic() - begin)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server and all below it."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    process.kill()
    process.wait()
    for left in psutil.wait_procs(below, timeout=STOP_SECONDS)[1]:
        with contextlib.suppress(psutil.Error):
            left.kill()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-20_000:]
