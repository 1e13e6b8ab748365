# SPDX-License-Identifier: Apache-2.0
"""How many of the ranks run on this host: only these need its GPUs and its /dev/shm.

Slurm and a LeaderWorkerSet give each host its share. mpirun fills the hosts of --hostfile or
--nodes one after another. Without either all ranks are here.
"""

import ipaddress
import socket
from collections.abc import Iterator, Mapping

import psutil

from trellis.ranks.options import RankOptions, find_host, share


def ranks_here(options: RankOptions, world_size: int, no_mpi: bool = False) -> int:
    """How many of `world_size` ranks this host has; all of them where the launcher will refuse."""
    try:
        host = find_host()
        if host.by or no_mpi:
            return len(share(host, world_size))
        slots = host_slots(options)
    except (OSError, ValueError):  # RanksError, or a host file that cannot be read
        return world_size
    if not slots:
        return world_size
    return sum(count for name, count in place(slots, world_size).items() if is_here(name))


def host_slots(options: RankOptions) -> dict[str, int]:
    """The hosts that mpirun is given, in order, with their slots; none if it is given none.

    As Open MPI counts. In --nodes: `a:4` has 4, `a` one, `a,a` two. In a host file: `a slots=4` has
    4, a line `a` one a core, two lines `a` two. Other hosts are taken to have this one's cores.
    """
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    said: dict[str, list[str]] = {}
    for name, slots in _listed(options):
        said.setdefault(name.rpartition("@")[2], []).append(slots)

    def total(counts: list[str]) -> int:
        if counts == [""] and not options.nodes:
            return cores
        return sum(int(count) if count.isdigit() else cores if count else 1 for count in counts)

    return {name: total(counts) for name, counts in said.items()}


def _listed(options: RankOptions) -> Iterator[tuple[str, str]]:
    """Each mention of a host, and the slots that it says: `4`, or '' for nothing."""
    if options.nodes:
        for entry in options.nodes.split(","):
            name, _, slots = entry.strip().partition(":")
            yield name, slots
    elif options.hostfile is not None:
        for line in options.hostfile.read_text(encoding="utf-8").splitlines():
            words = line.split("#")[0].replace("=", " ").split()
            if words:
                pairs = dict(zip(words[1::2], words[2::2], strict=False))
                yield words[0], pairs.get("slots", "")


def place(slots: Mapping[str, int], world_size: int) -> dict[str, int]:
    """Ranks by host: each is filled before the next; what is too many, evenly (--oversubscribe).

    >>> place({"a": 4, "b": 4}, 6)
    {'a': 4, 'b': 2}
    """
    placed, left = {}, world_size
    for name, count in slots.items():
        placed[name] = min(count, left)
        left -= placed[name]
    each = -(-left // len(slots))
    for name in slots:
        more = min(each, left)
        placed[name] += more
        left -= more
    return placed


def is_here(name: str) -> bool:
    """Whether a host's name or address is this machine's; names count without their domain."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = socket.gethostname().partition(".")[0]
        if name.partition(".")[0].lower() in ("localhost", own.lower()):
            return True
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(name, None)}
    except OSError:
        return False
    interfaces = psutil.net_if_addrs().values()
    own_addresses = {each.address.partition("%")[0] for card in interfaces for each in card}
    return any(
        address in own_addresses or ipaddress.ip_address(address).is_loopback for address in found
    )
