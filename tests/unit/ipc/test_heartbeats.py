"""The table of heartbeats: rows of living processes, seen by others; and what hangs by them."""

import os
import subprocess
import sys

import pytest

from trellis.ipc.heartbeats import ROWS, VARIABLE, Heartbeats
from trellis.ipc.process_state import (
    STOPPED,
    ask_for_stacks,
    below,
    describe,
    state,
    stopped_below,
)
from trellis.ipc.stalls import MOST_SECONDS, Stall, look_seconds

CHILD = """
import sys, time
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
show_stacks_on_signal()
row = heartbeats().claim("a child", loops=True)
row.beat()
row.work = 3
def waits():
    print(heartbeats().hang_timeout, heartbeats().status.draining, flush=True)
    sys.stdin.readline()
waits()
"""


def child(table: Heartbeats) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env={**os.environ, **table.environment()},
        pass_fds=[table.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_childs_row_is_seen_by_its_parent_and_free_after_it() -> None:
    table = Heartbeats.make(12.5)
    table.status.draining = True
    with child(table) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "12.5 True\n"
        (row,) = table.rows()
        assert (row.pid, row.name, row.work) == (process.pid, "a child", 3)
        assert row.loops
        assert not row.watched_inside
        assert row.last_beat > 0
        ask_for_stacks(process.pid)
        _, errors = process.communicate("\n", timeout=20)
    assert "in waits" in errors
    number = table.claim_number("another", True, True)
    assert table.row(number).name == "another"
    assert [row.name for row in table.rows()] == ["another"]  # in the place of the dead one
    table.close()
    table.close()


def test_without_a_launcher_there_is_a_table_that_nobody_watches() -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, input="\n", capture_output=True, text=True
    )
    assert done.stdout == "0.0 False\n"


def test_a_full_table_gives_rows_that_nobody_watches() -> None:
    table = Heartbeats.make(1)
    rows = [table.claim(f"row {number}") for number in range(ROWS + 2)]
    for row in rows:
        row.beat()
    assert len(table.rows()) == ROWS - 1
    assert table.status.server_pid == 0  # the server's own row is nobody's
    table.close()


def test_what_a_row_says() -> None:
    table = Heartbeats.make(1)
    row = table.claim("é" * 1000, watched_inside=True)
    assert row.name.startswith("ééé")
    assert row.watched_inside
    assert not row.loops
    assert row.began == 0
    with row.working():
        assert row.began > 0
        row.allow(5)
        row.quiet = 2
        assert row.allowed == 7
    assert (row.began, row.allowed) == (0, 2)
    row.allow(9)
    row.beat()
    assert row.allowed == 2
    row.release()
    assert table.rows() == []
    table.close()


def test_the_servers_own_row() -> None:
    table = Heartbeats.make(1)
    status = table.status
    assert (status.hung, status.draining, status.server_pid) == ("", False, 0)
    status.hung, status.server_pid = "the engine hangs", 7
    assert (status.hung, status.server_pid) == ("the engine hangs", 7)
    status.hung = ""
    assert status.hung == ""
    table.close()


def test_time_in_which_nobody_looked_counts_for_a_moment_alone() -> None:
    stall = Stall()
    assert stall.look(1.0, 10.0) == 0
    assert stall.look(1.0, 10.5) == 0.5
    assert stall.look(1.0, 10_000.0) == 0.5 + MOST_SECONDS  # the watcher was stopped, say
    assert stall.look(2.0, 10_000.1) == 0
    assert stall.look(2.0, 10_000.2) == pytest.approx(0.1)
    assert stall.look(None, 10_000.3) == 0
    assert stall.look(None, 10_001.3) == 0
    assert look_seconds(1.0) == 0.1
    assert look_seconds(30.0) == 0.5


def test_a_stopped_process_is_told_apart() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as process:
        while not list(below(process.pid)):
            pass
        (sleep,) = below(process.pid)
        assert stopped_below(process.pid) == []
        subprocess.run(["kill", "-STOP", str(sleep)], check=True)
        while state(sleep) != STOPPED:
            pass
        assert stopped_below(process.pid) == [sleep]
        assert "stopped by a signal" in describe(sleep)
        ask_for_stacks(sleep)  # which it has none of: it must not end of this
        assert state(sleep) == STOPPED
        ask_for_stacks(process.pid)
        assert process.poll() is None
        for pid in (sleep, process.pid):
            subprocess.run(["kill", "-KILL", str(pid)], check=True)
    assert state(process.pid) == ""
    assert "in the state ''" in describe(process.pid)
    assert describe(os.getpid()).startswith("running")
