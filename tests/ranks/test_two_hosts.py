# SPDX-License-Identifier: Apache-2.0
"""vLLM's workers on two hosts, one each: one launcher a host, no ssh, no mpirun.

The hosts are two network namespaces of this machine, each with an address of its own.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

pytest.importorskip("vllm", reason="needs vLLM: `make setup-vllm`", exc_type=ImportError)
if os.geteuid() != 0 or shutil.which("ip") is None:
    pytest.skip("needs root and iproute2 for network namespaces", allow_module_level=True)

from ranks.asked import ask_all
from ranks.vllm_processes import is_vllm, serve_vllm
from support.launched import command
from support.waiting import wait_for, wait_within
from trellis.server.restarts import LOADS

ADDRESSES = ("10.77.0.1", "10.77.0.2")
ASK = Path(__file__).parent / "asked.py"
READY_SECONDS = 300
END_SECONDS = 15
GIVEN_UP = "Triton gave up on the process of tensorrt_llm"


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """The names of two namespaces whose link has the namespace's own name."""
    names = [f"tre{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", name, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@dataclass
class Host:
    """One launcher in its namespace."""

    name: str
    log: Path
    launcher: "subprocess.Popen[bytes]"
    tree: set[psutil.Process]

    @classmethod
    def start(cls, repo: Path, name: str, index: int, folder: Path) -> "Host":
        environment = {
            **os.environ,
            "LWS_GROUP_SIZE": "2",
            "LWS_WORKER_INDEX": str(index),
            "LWS_LEADER_ADDRESS": ADDRESSES[0],
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # both hosts have this machine's cores
            "TMPDIR": str(folder),
        }
        inside = ["ip", "netns", "exec", name, *command(repo, "--world_size", "2")]
        log = folder / f"{index}.log"
        with log.open("wb") as output:
            launcher = subprocess.Popen(
                inside, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        return cls(name, log, launcher, set())

    def look(self) -> set[psutil.Process]:
        if self.launcher.poll() is None:
            self.tree |= set(psutil.Process(self.launcher.pid).children(recursive=True))
        return self.tree

    def worker(self) -> psutil.Process:
        """vLLM's only worker of this host."""
        found: list[psutil.Process] = []

        def one() -> bool:
            running = [each for each in self.look() if each.is_running()]
            found[:] = [each for each in running if is_vllm(each, "Worker")]
            return len(found) == 1

        try:
            wait_for(one, 10)
        except AssertionError:
            shown = {each.pid: each.as_dict(["cmdline", "status"]) for each in self.tree}
            raise AssertionError(f"no worker among {shown}") from None
        return found[0]


@pytest.fixture
def hosts(random_repo: Path, namespaces: list[str], tmp_path: Path) -> Iterator[list[Host]]:
    """Two launchers; the server of the first is ready."""
    started: list[Host] = []
    try:
        for number in range(LOADS):
            folder = tmp_path / str(number)
            folder.mkdir()
            started = [
                Host.start(random_repo, name, index, folder)
                for index, name in enumerate(namespaces)
            ]
            head = started[0]
            wait_for(
                lambda log=head.log, launcher=head.launcher: (  # type: ignore[misc]
                    "ready after" in log.read_text() or launcher.poll() is not None
                ),
                READY_SECONDS,
            )
            if head.launcher.poll() is None or GIVEN_UP not in head.log.read_text():
                break
            print(f"{GIVEN_UP}: all hosts are started anew, as a supervisor would")
            end(started)
        assert head.launcher.poll() is None, head.log.read_text()[-6000:]
        yield started
    finally:
        end(started)


def end(started: list[Host]) -> None:
    """End the launchers, and what they left."""
    for host in started:
        host.look()
        host.launcher.kill()
        host.launcher.wait()
        for process in host.tree:
            if process.is_running():
                process.kill()


def ended(hosts: list[Host]) -> bool:
    """Whether nothing of either host runs any more."""
    return not any(
        host.launcher.poll() is None or any(each.is_running() for each in host.tree)
        for host in hosts
    )


def test_two_hosts_answer_as_one_and_leave_together(
    random_repo: Path, hosts: list[Host], tmp_path: Path
) -> None:
    asking = ["ip", "netns", "exec", hosts[0].name, sys.executable, str(ASK)]
    asked = subprocess.run(
        [*asking, "http://127.0.0.1:8000"], stdout=subprocess.PIPE, check=True, timeout=120
    )
    assert not [each for each in hosts[1].look() if "tritonserver" in " ".join(each.cmdline()[:1])]
    for host in hosts:
        host.look()
    hosts[0].launcher.terminate()
    wait_within(END_SECONDS, lambda: ended(hosts))
    assert [host.launcher.returncode for host in hosts] == [0, 0]
    assert "host 0 was asked to stop" in hosts[1].log.read_text()
    with (
        serve_vllm(random_repo, tmp_path / "one") as one,
        httpx.Client(base_url=one.url, timeout=120) as http,
    ):
        expected = ask_all(http, 1)
    assert len(set(expected)) == 20
    assert json.loads(asked.stdout) == [expected, expected]


@pytest.mark.parametrize("what", ["worker of host 1", "launcher of host 0", "the network"])
def test_the_end_of_either_host_ends_both_within_15_seconds(hosts: list[Host], what: str) -> None:
    """While nothing runs: the library itself would notice it at the next request."""
    for host in hosts:
        host.look()
    begin = time.monotonic()
    if what == "worker of host 1":
        hosts[1].worker().send_signal(signal.SIGKILL)
    elif what == "launcher of host 0":
        hosts[0].launcher.kill()
    else:
        ip("-n", hosts[1].name, "link", "set", hosts[1].name, "down")
    wait_within(END_SECONDS, lambda: ended(hosts))
    print(f"{what}: all ended after {time.monotonic() - begin:.1f} s")
    assert hosts[1].launcher.returncode == 1
    assert hosts[0].launcher.returncode != 0
    said = hosts[0].log.read_text() + hosts[1].log.read_text()
    if what != "launcher of host 0":
        assert "host 1 failed" in said or "host 1 is gone" in said
    else:
        assert "host 0 is gone; ended the workers of this one" in said


def test_a_follower_that_is_asked_to_stop_takes_the_first_host_with_it(hosts: list[Host]) -> None:
    for host in hosts:
        host.look()
    hosts[1].launcher.terminate()
    wait_within(END_SECONDS, lambda: ended(hosts))
    assert [host.launcher.returncode for host in hosts] == [0, 0]
