# SPDX-License-Identifier: Apache-2.0
"""One tritonserver: started, watched, stopped, with nothing left behind.

Triton leaves a client waiting for ever when the process of a Python model dies under its request.
So the watch ends the whole server when a model's process dies: clients get a closed connection,
readiness fails, and whoever supervises the launcher sees its exit status.
"""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import psutil

from trellis.ipc import library_memory
from trellis.ipc.heartbeats import Heartbeats
from trellis.ipc.server_folder import FOLDER
from trellis.ipc.server_lifetime import LIFELINE
from trellis.server import folder as server_folder
from trellis.server import shared_memory
from trellis.server.admin_endpoints import new_key, restrictions
from trellis.server.allocator import preloaded
from trellis.server.child import prepare_child, prepare_gateway
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.hangs import Hangs
from trellis.server.load_order import load_order
from trellis.server.loading import UNLOAD_SECONDS, GivenUp, Loading
from trellis.server.numpy2_bridge import STUB
from trellis.server.settings import (
    Behind,
    LoadGivenUp,
    ServerFailed,
    ServerSettings,
    has_gateway,
)
from trellis.server.triton import Triton, find_triton
from trellis.server.wakeup_sockets import give_room
from trellis.server.watched import Watched

# The server is on this machine: no proxy of the environment stands between.
# Its certificate is for the names of clients, and nothing is sent that is secret.
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
)
DRAIN_LOOK_SECONDS = 0.05
LAST_ERRORS_SECONDS = 1.0  # for the gateway to answer what the server left unanswered


class Server:
    """A running tritonserver and its tree of processes. Use as a context manager."""

    def __init__(self, settings: ServerSettings, output: IO[bytes] | None = None) -> None:
        self.settings = settings
        triton = find_triton(settings.tritonserver)
        self._behind = Behind.of(settings) if has_gateway(settings) else None
        # Where Triton itself listens for HTTP.
        self.triton_port = settings.http_port if self._behind is None else self._behind.http
        self.heartbeats = Heartbeats.make(settings.hang_timeout)
        self._output = output
        self._make_files()
        self._hung = 0  # the process that hangs
        self._admin_key = new_key()
        self.gateway: subprocess.Popen[bytes] | None = None
        try:
            self.process = self._start(triton)
            if self._behind is not None:
                self.gateway = self._start_gateway(self._behind)
        except BaseException:
            self.stop(grace=0) if hasattr(self, "process") else self._remove_files()
            raise

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_files(self) -> None:
        self.folder = server_folder.make(self.settings.name)
        self.prefix = f"{self.folder.name}_"
        self._locks = claim_files(self.folder, self.prefix)
        self._seen: set[psutil.Process] = set()  # processes of the tree
        self._memory: set[Path] = set()  # files in /dev/shm of an engine's library

    def put_down(self) -> None:
        """End tritonserver at once, and the gateway if it failed; else that says 503 from here on.

        After this `start_again`, or `stop`.
        """
        self.heartbeats.status.restarting = True
        self._end_tree(0)
        if self.gateway is not None and self._hung in self._gateway_pids():
            self.gateway.kill()  # its workers end with it
        self._remove_files()

    def _gateway_pids(self) -> list[int]:
        """The processes of the gateway: the one that was started, and its workers."""
        if self.gateway is None or self.gateway.poll() is not None:
            return []
        with contextlib.suppress(psutil.Error):
            workers = psutil.Process(self.gateway.pid).children()
            return [self.gateway.pid, *(worker.pid for worker in workers)]
        return [self.gateway.pid]

    def start_again(self) -> None:
        """Start what was put down, on the same ports. Raises OSError."""
        self._make_files()
        self.heartbeats.status.hung, self._hung = "", 0
        self.process = self._start(find_triton(self.settings.tritonserver))
        if (
            self._behind is not None
            and self.gateway is not None
            and self.gateway.poll() is not None
        ):
            self.gateway = self._start_gateway(self._behind)

    def _start(self, triton: Triton) -> "subprocess.Popen[bytes]":
        backends = triton.lay_out_backends(self.folder / "backends")
        models = server_folder.plain_path(self.folder, self.settings.model_repo)
        arguments = self.settings.arguments(self.prefix, self._behind, models)
        arguments += load_order(self.settings.model_repo, self.settings.extra)
        command = [str(triton.binary), *backends, *arguments]
        if self.settings.serves:
            admin, keyed = self.settings.allow_admin_endpoints, bool(self.settings.access.api_keys)
            command += restrictions(triton.binary, self._admin_key, admin, keyed)
        lifeline, writing = os.pipe()  # see trellis/ipc/server_lifetime.py
        os.close(lifeline)
        try:
            running = triton.running_in(self.folder / "backends")
            environment = {**running, LIFELINE: str(writing), FOLDER: str(self.folder)}
            environment |= preloaded(self.settings.allocator) | self.heartbeats.environment()
            # The stubs search the working folder for modules first.
            inherited = (writing, self.heartbeats.descriptor, *self._locks)
            started = self._spawn(command, self.folder, environment, inherited)
            self.heartbeats.status.server_pid = started.pid
            return started
        finally:
            os.close(writing)

    def _start_gateway(self, behind: Behind) -> "subprocess.Popen[bytes]":
        settings = self.settings
        gateway = GatewaySettings(
            address=settings.address,
            port=settings.http_port,
            triton_port=behind.http,
            triton_pid=self.process.pid,
            drain_timeout=settings.drain_timeout,
            model_repo=str(settings.model_repo.resolve()) if settings.gateway_decoding else "",
            expose_inner_models=settings.expose_inner_models,
            allow_admin_endpoints=settings.allow_admin_endpoints,
            admin_key="" if settings.allow_admin_endpoints and not behind.grpc else self._admin_key,
            limits=settings.gateway_limits,
            short_way=settings.short_way,
            page=settings.page,
            metrics_address=settings.metrics_address,
            metrics_port=settings.metrics_port,
            triton_metrics_port=behind.metrics,
            log_format=settings.log_format,
            otlp_endpoint=settings.otlp_endpoint,
            log_prompts=settings.log_prompts,
            metrics_names=list(settings.metrics_names),
            access=settings.access.absolute(),
            grpc_address=settings.grpc_address,
            grpc_port=settings.grpc_port if behind.grpc else 0,
            triton_grpc_port=behind.grpc,
            workers=settings.gateway_workers,
        )
        table = self.heartbeats
        environment, inherited = table.environment(), (table.descriptor,)
        command = gateway.command()
        return self._spawn(command, IMPORTED_FROM, environment, inherited, prepare_gateway)

    def reload(self) -> None:
        """Have the gateway read the files of keys and certificates again."""
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.send_signal(signal.SIGHUP)

    def _spawn(
        self,
        command: list[str],
        folder: Path,
        environment: Mapping[str, str],
        inherited: tuple[int, ...] = (),
        prepare: "Callable[[], None] | None" = None,
    ) -> "subprocess.Popen[bytes]":
        output = self._output
        return subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,  # Ctrl-C in a terminal reaches the launcher alone
            preexec_fn=prepare or prepare_child,
            pass_fds=inherited,
        )

    def wait_ready(self, on_wait: Callable[[float], None] = lambda _: None) -> float:
        """Seconds until every model was ready.

        `on_wait` is called ten times a second with the seconds so far. Raises ServerFailed if it
        cannot be ready any more, and LoadGivenUp, which is one, where a new start may go well.
        """
        begin = time.monotonic()
        loading = Loading(self.process.pid, self.stubs, self.settings.load_timeout)
        while True:
            self._check_loading(loading)
            if self.ready():
                break
            time.sleep(0.1)
            on_wait(time.monotonic() - begin)
        if self.settings.serves:
            give_room(self.process.pid)
        self._note_memory()
        self.heartbeats.status.restarting = False
        return time.monotonic() - begin

    def _check_loading(self, loading: Loading) -> None:
        log = self.settings.log_file or "the log above"
        if self.process.poll() is not None:
            raise ServerFailed(
                f"tritonserver ended with status {self.process.returncode} before it was ready;"
                f" {log} says why: look for 'failed to load'"
            )
        if self.gateway is not None and self.gateway.poll() is not None:
            raise ServerFailed(f"the HTTP gateway ended with status {self.gateway.returncode}")
        failure = loading.failure()
        if failure is not None:
            kind = LoadGivenUp if failure.passing else ServerFailed
            raise kind(f"{failure.why} before the server was ready; {log} says more")

    def ready(self) -> bool:
        """Whether the server says that it and every model are ready."""
        return _get(f"{self.settings.url}/v2/health/ready") is not None

    def models_ready(self) -> dict[str, bool]:
        """Which models are loaded by now, by name. Triton is asked, which wants no key."""
        behind = f"http://127.0.0.1:{self.triton_port}"
        url = self.settings.url if self.gateway is None else behind
        models = sorted(
            path.parent.name for path in self.settings.model_repo.glob("*/config.pbtxt")
        )
        return {name: _get(f"{url}/v2/models/{name}/ready") is not None for name in models}

    def stubs(self) -> dict[int, str]:
        """The processes of the Python models: pid -> model."""
        found = {}
        for child in self._tree():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if len(command) > 1 and command[0].endswith(STUB):
                    found[child.pid] = Path(command[1]).parent.parent.name
        return found

    def watch(self, stopping: Callable[[], bool]) -> str | None:
        """Wait until `stopping()`, or until something dies or hangs; then say what.

        None if asked to stop. What hangs has been reported with what is known of it.
        """
        with contextlib.closing(self._hangs()) as hangs:
            return self._watch(stopping, hangs)

    def _hangs(self) -> Hangs:
        settings = self.settings
        server = self.process.pid, "tritonserver"
        if not settings.serves:
            return Hangs(self.heartbeats, server, None)
        http, metrics = settings.place("http"), settings.place("metrics")
        if self._behind is not None:  # Triton's own, not the gateway's
            http, metrics = ("127.0.0.1", self._behind.http), ("127.0.0.1", self._behind.metrics)
        return Hangs(self.heartbeats, server, _reached(http), _reached(metrics))

    def _watch(self, stopping: Callable[[], bool], hangs: Hangs) -> str | None:
        loading = Loading(self.process.pid, self.stubs, limit=0)  # nobody else waits for a rank
        given_up = GivenUp(self.process.pid, UNLOAD_SECONDS)
        models: dict[str, str] = {}  # by what their processes are called
        with Watched() as watched:
            watched.add(self.process.pid, "tritonserver")
            if self.gateway is not None:
                watched.add(self.gateway.pid, "the HTTP gateway")
            while not stopping():
                for pid, model in self.stubs().items():
                    watched.add(pid, name := f"the process of {model}")
                    models[name] = model
                died = watched.wait(0.5)
                if died and died[1] in models and self._unloaded(models[died[1]]):
                    watched.forget(died[0])
                elif died and not stopping():
                    return self._describe(*died)
                if hang := hangs.look(watched.names(), self._pids(), time.monotonic()):
                    hangs.report(hang)
                    self._hung = hang.pid
                    return hang.what
                if not self.settings.serves and (failure := loading.failure()):
                    return failure.why
                self._end_given_up(given_up)
        return None

    def _end_given_up(self, given_up: GivenUp) -> None:
        """End a model's process that Triton waits for in vain, which fails its load."""
        if not self.settings.loads_at_run_time:
            return
        stubs = self.stubs()
        pid = given_up.look(stubs, time.monotonic())
        if pid is not None:
            print(
                f"launch_triton_server: Triton waits for the process of {stubs[pid]} (pid {pid}) to"
                " end, which it does not; ending it: load the model again",
                file=sys.stderr,
                flush=True,
            )
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self) -> list[int]:
        """The processes below tritonserver that were seen last."""
        return [process.pid for process in self._seen if process.is_running()]

    def _unloaded(self, model: str) -> bool:
        """Whether a model's process ended because the model was unloaded, or loaded anew.

        Triton goes on saying that a model is ready whose process died by itself. Where it was
        loaded anew, there are as many processes as it has instances.
        """
        if not (self.settings.serves and self.settings.loads_at_run_time):
            return False
        url = f"http://127.0.0.1:{self.triton_port}/v2/models/{model}"
        if _get(f"{url}/ready") is None:
            return self.process.poll() is None
        config = _get(f"{url}/config")
        groups = config.get("instance_group", []) if isinstance(config, dict) else []
        instances = sum(max(group.get("count", 1), 1) for group in groups)
        return list(self.stubs().values()).count(model) >= max(int(instances), 1)

    def _describe(self, pid: int, name: str) -> str:
        if hung := self.heartbeats.status.hung:  # seen inside, which ended it
            return hung
        status = ""
        for process in (self.process, self.gateway):
            if process is not None and pid == process.pid:
                status = f" with status {process.wait()}"
        return f"{name} (pid {pid}) died{status}"

    def drain(self, cut_short: Callable[[], bool] = lambda: False) -> None:
        """Take no new requests, and wait for those in flight until `drain_timeout` is over.

        Readiness fails first. `cut_short`: looked at all the time; True ends the waiting.
        """
        self.heartbeats.status.draining = True  # of gRPC's clients, too
        if self.gateway is not None and self.gateway.poll() is None:
            self.gateway.terminate()  # it takes no more requests, and passes the last answers on
        end = time.monotonic() + self.settings.drain_timeout
        while self._in_flight() and time.monotonic() < end and not cut_short():
            time.sleep(DRAIN_LOOK_SECONDS)

    def _in_flight(self) -> bool:
        """Whether the gateway answers clients, or an engine of Python any."""
        if self.process.poll() is not None:
            return False
        if self.gateway is not None and self.gateway.poll() is None:
            return True
        return any(row.work for row in self.heartbeats.rows())

    def stop(self, grace: float | None = None) -> None:
        """End the whole tree: politely, then not; remove what it left. Safe to call twice.

        `grace` in seconds, 0 for at once; by default requests are drained, and then the models
        have what they have to end in, and 2 seconds more.
        """
        if grace is None and not self.heartbeats.status.draining:
            self.drain()
        grace = self.settings.exit_timeout + 2.0 if grace is None else grace
        tree = self._end_tree(grace)
        self._end_gateway(grace)
        psutil.wait_procs(tree, timeout=2.0)
        self._remove_files()
        self.heartbeats.close()

    def _end_tree(self, grace: float) -> list[psutil.Process]:
        """End tritonserver and what it started, which may take a moment to be gone."""
        self._note_memory()
        if self.process.poll() is None and grace:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        tree = self._tree()  # with what it started meanwhile
        psutil.wait_procs(tree, timeout=1.0 if grace else 0)
        for process in tree:
            if process.is_running():
                _quietly(process.kill)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        library_memory.remove(self._memory)
        return tree

    def _note_memory(self) -> None:
        """Remember what is to be removed if those who made it are killed."""
        alive = (process.pid for process in self._tree() if process.is_running())
        self._memory |= library_memory.mapped(alive)

    def _remove_files(self) -> None:
        server_folder.remove(self.folder)
        shared_memory.remove(self.prefix)
        while self._locks:
            os.close(self._locks.pop())

    def _end_gateway(self, grace: float) -> None:
        """Nothing is behind it any more: it tells its clients so, if it can."""
        if self.gateway is None:
            return
        if self.gateway.poll() is None and not grace:
            self.gateway.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.gateway.wait(LAST_ERRORS_SECONDS)
        self.gateway.kill()
        self.gateway.wait()

    def _tree(self) -> list[psutil.Process]:
        """All that the server is known to have started; psutil tells reused pids apart."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self._seen.update(psutil.Process(self.process.pid).children(recursive=True))
        return list(self._seen)


def claim_files(folder: Path, prefix: str) -> list[int]:
    """Remove what servers that were killed left, and mark this one's files as in use."""
    locks = []
    with contextlib.suppress(OSError):  # full, or not there: Triton will say so
        shared_memory.sweep()
        locks.append(shared_memory.claim(prefix))
    with contextlib.suppress(OSError):
        server_folder.sweep()
        locks.append(server_folder.claim(folder))
    return locks


def _reached(place: tuple[str, int]) -> tuple[str, int]:
    """Where this machine reaches what listens there."""
    address, port = place
    return ("127.0.0.1" if address == "0.0.0.0" else address), port


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(psutil.Error):
        action()


def _get(url: str) -> object:
    """The JSON (or empty) answer of a GET, None if there is none."""
    try:
        with _DIRECT.open(url, timeout=2) as response:
            body = response.read()
            return json.loads(body) if body else {}
    except (OSError, http.client.HTTPException, ValueError):
        return None
