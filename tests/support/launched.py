"""A launcher as a supervisor has it: a process, an exit status, its output, what it leaves."""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import psutil

from support.paths import ROOT
from trellis.server.numpy2_bridge import STUB
from trellis.server.ports import free_ports

LAUNCHER = ROOT / "tools" / "launch_triton_server.py"
READY_SECONDS = 180  # a machine may be busy
MODELS = ("preprocessing", "tensorrt_llm", "postprocessing")


class Launched:
    """`with Launched(repo, folder) as launched`: started inside, gone after.

    `around`: a command line that the launcher's is put into, such as `small_disks.around`.
    """

    def __init__(self, repo: Path, folder: Path, *arguments: str, around: str = "eval {}") -> None:
        self.http, self.grpc, self.metrics = free_ports(3)
        self.temporary = folder / "tmp"  # every trace is looked for where only this one writes
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "launcher.log"
        command = [
            sys.executable, str(LAUNCHER), "--model_repo", str(repo),
            "--http_port", str(self.http), "--grpc_port", str(self.grpc),
            "--metrics_port", str(self.metrics), *arguments,
        ]  # fmt: skip
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                ["sh", "-c", around.format(shlex.quote("exec " + shlex.join(command)))],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.temporary), "COLUMNS": "200"},
            )
        self.tree: set[psutil.Process] = set()

    def __enter__(self) -> "Launched":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.look()
        if error is not None:
            print(self.log()[-6000:])
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for process in self.tree:
            if process.is_running():
                process.kill()

    def log(self) -> str:
        """All it printed so far."""
        return self.log_file.read_text(errors="replace")

    def look(self) -> set[psutil.Process]:
        """The processes that it started, as far as they were seen."""
        if self.process.poll() is None:
            self.tree |= set(psutil.Process(self.process.pid).children(recursive=True))
        return self.tree

    def wait_ready(self) -> "Launched":
        """Wait for readiness; fails with what was printed if it ends before."""
        end = time.monotonic() + READY_SECONDS
        while "ready after" not in self.log():
            self.look()
            assert self.process.poll() is None, self.log()[-6000:]
            assert time.monotonic() < end, self.log()[-6000:]
            time.sleep(0.05)
        self.look()
        return self

    def ended(self, seconds: float = READY_SECONDS) -> tuple[int, str]:
        """Its exit status, once it ends by itself, and what it printed."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.look()
            time.sleep(0.05)
        assert self.process.returncode is not None, f"still runs: {self.log()[-6000:]}"
        return self.process.returncode, self.log()

    @property
    def url(self) -> str:
        """Where HTTP clients go."""
        return f"http://127.0.0.1:{self.http}"

    def stub(self, model: str) -> psutil.Process:
        """The process of a Python model."""
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = [*process.cmdline(), "", ""]
                if command[0].endswith(STUB) and f"/{model}/1/" in command[1]:
                    return process
        raise LookupError(model)

    def assert_nothing_left(self) -> None:
        """No process, temporary file, shared memory or bound port."""
        _, alive = psutil.wait_procs(self.tree, timeout=5)
        assert alive == []
        assert [path.name for path in self.temporary.iterdir()] == []
        for port in (self.http, self.grpc, self.metrics):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
