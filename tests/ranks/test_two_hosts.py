"""Two hosts, one rank each, started as a LeaderWorkerSet does: one launcher a host, no ssh.

The hosts are two network namespaces of this machine, each with an address of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)
if os.geteuid() != 0 or shutil.which("ip") is None:
    pytest.skip("needs root and iproute2 for network namespaces", allow_module_level=True)

import httpx

from ranks.asked import ask_all
from ranks.launched_ranks import Launched, command, wait_for

ADDRESSES = ("10.77.0.1", "10.77.0.2")
ASK = Path(__file__).parent / "asked.py"


@pytest.fixture
def hosts() -> Iterator[list[str]]:
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


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip(f"network namespaces are not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def launch(repo: Path, host: str, index: int, folder: Path) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "LWS_GROUP_SIZE": "2",
        "LWS_WORKER_INDEX": str(index),
        "LWS_LEADER_ADDRESS": ADDRESSES[0],
        "GLOO_SOCKET_IFNAME": host,  # both hosts have this machine's name
    }
    inside = ["ip", "netns", "exec", host, *command(repo, "--world_size", "2")]
    with (folder / f"{index}.log").open("wb") as output:
        return subprocess.Popen(inside, stdout=output, stderr=subprocess.STDOUT, env=environment)


def test_two_hosts_answer_as_one_and_leave_together(
    random_repo: Path, hosts: list[str], tmp_path: Path
) -> None:
    with (
        Launched(random_repo, tmp_path / "one") as one,
        httpx.Client(base_url=one.url, timeout=120) as http,
    ):
        expected = ask_all(http, 1)
    launchers = [launch(random_repo, host, i, tmp_path) for i, host in enumerate(hosts)]
    try:
        log = tmp_path / "0.log"
        wait_for(lambda: "ready after" in log.read_text() or launchers[0].poll() is not None, 120)
        assert launchers[0].poll() is None, log.read_text()[-3000:]
        asking = ["ip", "netns", "exec", hosts[0], sys.executable, str(ASK)]
        asked = subprocess.run(
            [*asking, "http://127.0.0.1:8000"], stdout=subprocess.PIPE, check=True
        )
        assert json.loads(asked.stdout) == [expected, expected]
        launchers[0].terminate()
        begin = time.monotonic()
        assert [launcher.wait(25) for launcher in launchers] == [0, 0]
        assert time.monotonic() - begin < 20
        assert "rank 0 left, and this rank after it" in (tmp_path / "1.log").read_text()
    finally:
        for launcher in launchers:
            if launcher.poll() is None:
                launcher.kill()
