"""Which ranks are this host's: mpirun's hosts, Slurm's and a LeaderWorkerSet's shares."""

import socket
from pathlib import Path

import psutil
import pytest

from trellis.ranks.options import RankOptions
from trellis.ranks.placement import host_slots, is_here, place, ranks_here

CORES = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
ELSEWHERE = "192.0.2.7"  # kept for documentation: nobody's


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LWS_GROUP_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("nodes", "slots"),
    [
        ("a:4, b:2", {"a": 4, "b": 2}),
        ("a,b", {"a": 1, "b": 1}),
        ("a,a,b:3", {"a": 2, "b": 3}),
        ("a:auto", {"a": CORES}),
        ("me@a:2", {"a": 2}),
    ],
)
def test_the_slots_of_named_hosts(nodes: str, slots: dict[str, int]) -> None:
    assert host_slots(RankOptions(2, nodes=nodes)) == slots


def test_the_slots_of_a_host_file(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "# all\n\na slots=4 max_slots=8\nb max-slots = 9 slots = 2 # two\nc\nd\nd\ne slots\n"
    )
    found = host_slots(RankOptions(2, hostfile=hosts))
    assert found == {"a": 4, "b": 2, "c": CORES, "d": 2, "e": CORES}
    assert list(found) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("ranks", "placed"),
    [(3, [3, 0]), (4, [4, 0]), (6, [4, 2]), (8, [4, 4]), (11, [6, 5])],
)
def test_hosts_are_filled_one_after_another(ranks: int, placed: list[int]) -> None:
    assert list(place({"a": 4, "b": 4}, ranks).values()) == placed


def test_this_host_is_known_by_its_names_and_addresses() -> None:
    own = socket.gethostname().partition(".")[0]
    for name in ("localhost", "127.0.0.1", "127.0.1.1", own, f"{own.upper()}.cluster.example"):
        assert is_here(name), name
    for name in (ELSEWHERE, f"not-{own}", "a b"):
        assert not is_here(name), name


@pytest.mark.parametrize(
    ("nodes", "here"),
    [
        ("", 6),
        (f"localhost:4,{ELSEWHERE}:4", 4),
        (f"{ELSEWHERE}:4,localhost:4", 2),
        (f"{ELSEWHERE}:8", 0),
        ("localhost:4,127.0.0.1:4", 6),
    ],
)
def test_only_ranks_of_this_host_are_counted(nodes: str, here: int) -> None:
    assert ranks_here(RankOptions(6, nodes=nodes), 6) == here


def test_a_share_counts_before_any_host_file(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RankOptions(6, nodes=f"{ELSEWHERE}:8")
    assert ranks_here(options, 6, no_mpi=True) == 6
    monkeypatch.setenv("LWS_GROUP_SIZE", "2")
    monkeypatch.setenv("LWS_WORKER_INDEX", "1")
    monkeypatch.setenv("LWS_LEADER_ADDRESS", "a-0.a")
    assert ranks_here(options, 6) == 3
    assert ranks_here(options, 5) == 5  # the launcher says that this cannot be


def test_a_host_file_that_cannot_be_read_leaves_all_ranks_here(tmp_path: Path) -> None:
    assert ranks_here(RankOptions(2, hostfile=tmp_path / "none"), 2) == 2
