"""A launcher of several ranks as a user has it: a process, its output in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil

from support.paths import ROOT
from trellis.server.ports import free_ports

LAUNCHER = ROOT / "tools" / "launch_triton_server.py"


def command(repo: Path, *arguments: str, python: str = sys.executable) -> list[str]:
    """The launcher's command line, but for the ports."""
    return [python, str(LAUNCHER), "--model_repo", str(repo), *arguments]


class Launched:
    """`with Launched(repo, folder, "--world_size", "2") as ranks`: ready inside, gone after."""

    def __init__(
        self,
        repo: Path,
        folder: Path,
        *arguments: str,
        ready_seconds: float = 120,
        python: str = sys.executable,
    ) -> None:
        self.ready_seconds = ready_seconds
        folder.mkdir(parents=True, exist_ok=True)
        http, grpc, metrics = map(str, free_ports(3))
        self.url = f"http://127.0.0.1:{http}"
        self.log_file = folder / "launcher.log"
        # Every trace it may leave is looked for where only this launcher writes.
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        ports = ("--http_port", http, "--grpc_port", grpc, "--metrics_port", metrics)
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                command(repo, *ports, *arguments, python=python),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.temporary)},
            )
        self.tree: list[psutil.Process] = []

    def __enter__(self) -> "Launched":
        try:
            wait_for(
                lambda: "ready after" in self.log() or self.process.poll() is not None,
                self.ready_seconds,
            )
            assert self.process.poll() is None, self.log()[-4000:]
            self.tree = psutil.Process(self.process.pid).children(recursive=True)
        except BaseException:
            print(self.log()[-4000:])
            self.process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            print(self.log()[-4000:])
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(25)
        finally:
            for process in self.tree:
                if process.is_running():
                    process.kill()

    def log(self) -> str:
        """All that the launcher and its ranks said so far."""
        return self.log_file.read_text(errors="replace")

    def find(self, rank: int, what: str) -> psutil.Process:
        """The process of a rank with `what` in its command: its server, a model's stub, engine."""
        for process in self.tree:
            environ = process.environ()
            number = environ.get("RANK") or environ.get("OMPI_COMM_WORLD_RANK")
            if number == str(rank) and any(what in part for part in process.cmdline()[:4]):
                return process
        raise AssertionError(f"rank {rank} has no {what}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(25)

    def assert_nothing_left(self) -> None:
        """No process of any rank, no temporary file, no shared memory."""
        _, alive = psutil.wait_procs(self.tree, timeout=5)
        assert alive == []
        assert [path.name for path in self.temporary.glob("trellis-*")] == []
        left = list(Path("/dev/shm").glob(f"trellis-g{self.process.pid}-*"))
        assert left == []


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Fail unless it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
