"""A launcher as a supervisor has it: a process, an exit status, its output, what it leaves."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import psutil

from support.ending import end_beside
from support.paths import ROOT
from trellis.ipc.library_memory import mapped
from trellis.ipc.process_state import ask_for_stacks
from trellis.server.numpy2_bridge import STUB
from trellis.server.ports import free_ports

LAUNCHER = ROOT / "tools" / "launch_triton_server.py"
READY_SECONDS = 180  # a machine may be busy
STOP_SECONDS = 25
MODELS = ("preprocessing", "tensorrt_llm", "postprocessing")


class Launched:
    """What `serve(repo, folder, launcher=True)` gives: ready inside, gone after.

    `ready=False` does not wait, for launches that fail. `around`: a command line that the
    launcher's is put into, such as `small_disks.around`.
    """

    def __init__(
        self,
        repo: Path,
        folder: Path,
        *arguments: str,
        ready: bool = True,
        around: str = "eval {}",
        ready_seconds: float = READY_SECONDS,
        python: str = sys.executable,
    ) -> None:
        self.http, self.grpc, self.metrics = free_ports(3)
        self.temporary = folder / "tmp"  # every trace is looked for where only this one writes
        self.temporary.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "launcher.log"
        self.awaited = ready
        self.ready_seconds = ready_seconds
        ports = ("--http_port", self.http, "--grpc_port", self.grpc, "--metrics_port", self.metrics)
        line = shlex.join(command(repo, *map(str, ports), *arguments, python=python))
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                ["sh", "-c", around.format(shlex.quote(f"exec {line}"))],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.temporary), "COLUMNS": "200"},
            )
        self.tree: set[psutil.Process] = set()
        self.shared: set[Path] = set()  # files in /dev/shm of an engine's library
        self.prefixes = {f"trellis-g{self.process.pid}-"}  # of files in /dev/shm

    def __enter__(self) -> "Launched":
        if self.awaited:
            try:
                self.wait_ready()
            except BaseException:
                self.__exit__(*sys.exc_info())
                raise
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
        end_beside(self._end)

    def _end(self) -> None:
        """Wait until it ended, and end what it left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for process in self.tree:
            if process.is_running():
                process.kill()

    @property
    def url(self) -> str:
        """Where HTTP clients go."""
        return f"http://127.0.0.1:{self.http}"

    def log(self) -> str:
        """All that it, its server and its ranks printed so far."""
        return self.log_file.read_text(errors="replace")

    def look(self) -> set[psutil.Process]:
        """The processes that it started, as far as they were seen."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.tree |= set(psutil.Process(self.process.pid).children(recursive=True))
            self.shared |= mapped(each.pid for each in self.tree if each.is_running())
            self.prefixes |= {path.name for path in self.temporary.glob("trellis-*")}
        return self.tree

    def wait_ready(self) -> "Launched":
        """Wait for readiness; fails with what was printed if it ends before."""
        end = time.monotonic() + self.ready_seconds
        while "ready after" not in self.log():
            self.look()
            assert self.process.poll() is None, self.log()[-6000:]
            if time.monotonic() > end:
                for process in self.look():  # whatever hangs says where
                    ask_for_stacks(process.pid)
                raise AssertionError(f"not ready: {self.log()[-20_000:]}")
            time.sleep(0.05)
        self.tree = {process for process in self.look() if process.is_running()}
        return self

    def ended(self, seconds: float = READY_SECONDS) -> tuple[int, str]:
        """Its exit status, once it ends by itself, and what it printed."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.look()
            time.sleep(0.05)
        assert self.process.returncode is not None, f"still runs: {self.log()[-6000:]}"
        return self.process.returncode, self.log()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.look()
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def find(self, what: str, rank: int | None = None) -> psutil.Process:
        """A process with `what` in its command, of that rank: its server, a model's stub."""
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                in_command = any(what in part for part in process.cmdline()[:4])
                if in_command and rank in (None, _rank_of(process)):
                    return process
        raise LookupError(f"no {what}" if rank is None else f"rank {rank} has no {what}")

    def stub(self, model: str) -> psutil.Process:
        """The process of a Python model."""
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                program = [*process.cmdline(), "", ""]
                if program[0].endswith(STUB) and f"/{model}/1/" in program[1]:
                    return process
        raise LookupError(model)

    def assert_nothing_left(self, files: str = "*") -> None:
        """No process, temporary file of that pattern, shared memory or bound port.

        What torch compiled is kept for the next server.
        """
        _, alive = psutil.wait_procs(self.tree, timeout=5)
        assert alive == []
        left = [path.name for path in self.temporary.glob(files)]
        assert [name for name in left if not name.startswith("torchinductor_")] == []
        shared = [path for name in self.prefixes for path in Path("/dev/shm").glob(f"{name}*")]
        assert shared == []
        assert [path for path in self.shared if path.exists()] == []
        for port in (self.http, self.grpc, self.metrics):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))


def command(repo: Path, *arguments: str, python: str = sys.executable) -> list[str]:
    """The launcher's command line, but for the ports."""
    return [python, str(LAUNCHER), "--model_repo", str(repo), *arguments]


def _rank_of(process: psutil.Process) -> int | None:
    """The rank that a process belongs to, by the environment that it was given."""
    environ = process.environ()
    number = environ.get("RANK") or environ.get("OMPI_COMM_WORLD_RANK")
    return None if number is None else int(number)
