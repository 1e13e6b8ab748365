"""What the load generator is told, and what it tells."""

from dataclasses import dataclass, field

from http_stream import Piece

ID = b"#" * 12  # stands for the request's id in a prepared request


@dataclass
class Job:
    """What to send where. `requests` are taken in turn; each holds ID once."""

    protocol: str  # http or grpc
    host: str
    port: int
    requests: list[bytes]
    streams: int
    warm_seconds: float
    seconds: float
    pids: list[int]
    drain_seconds: float = 10.0  # how long what is in flight may take to end
    parts: int = 1  # of the window, each with its own CPU


@dataclass
class Sent:
    """One request: which of the prepared ones, when it left, what came, whether all came."""

    request: int
    sent: float
    pieces: list[Piece]
    finished: bool
    wrong: str = ""  # the connection broke


@dataclass
class Load:
    """All requests, and the window: its ends in seconds, and each process's CPU seconds there."""

    sent: list[Sent] = field(default_factory=list)
    begin: float = 0.0
    end: float = 0.0
    cpu_begin: dict[int, float] = field(default_factory=dict)
    cpu_end: dict[int, float] = field(default_factory=dict)
    # Where each part of the window ended, and the CPU seconds there.
    marks: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    own_cpu: float = 0.0
