# SPDX-License-Identifier: Apache-2.0
"""Every limit and time-out of the gateway. docs/gateway.md says what a client gets at each."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass

from trellis.errors import TrellisError

LONG_BODY = 1024  # bytes of a request: beyond, another thread reads and encodes it
MAX_ENGINE_BODY = 16_384  # beyond, the ensemble: JSON of its ids would cost more than it saves
ID_CHARACTERS = 128  # of a client's id for a request
RESERVED_FILES = 128  # descriptors that are no connections
MIN_BODY_BYTES = 1 << 20
BODY_BYTES_PER_TOKEN = 16  # of the engine's context
MIN_JSON_ITEMS = 100_000
JSON_ITEMS_PER_TOKEN = 2  # of the engine's context: a prompt may be ids


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds. `GatewaySettings.limits` changes them by these names."""

    # Connections.
    connections: int = 8192
    connections_per_address: int = 4096
    handshake_seconds: float = 10.0  # of TLS
    idle_seconds: float = 75.0  # a connection without a request
    unread_seconds: float = 60.0  # a client that takes nothing of what was written to it
    linger_seconds: float = 2.0  # for a client to read a refusal while it still sends

    # A request on its way in.
    head_bytes: int = 65_536
    headers: int = 100
    path_bytes: int = 1024
    head_seconds: float = 20.0
    ahead_bytes: int = 262_144  # sent before the answer to an earlier request
    body_seconds: float = 60.0
    body_framing_bytes: int = 65_536  # of a chunked body, beside its data
    body_bytes: int = 0  # 0: by the engine's context, see `body_limit`
    bodies_bytes: int = 256 << 20  # of all requests together, until each is answered
    request_seconds: float = 3600.0  # from its head to the end of its answer

    # JSON, counted before it is parsed.
    json_depth: int = 64
    json_keys: int = 10_000
    json_items: int = 0  # 0: by the engine's context, see `items_limit`
    parse_here_bytes: int = 65_536  # beyond, a process of its own parses
    parse_seconds: float = 2.0
    parse_memory_bytes: int = 512 << 20
    parse_queue: int = 64  # bodies that wait for that process
    prompt_cache_bytes: int = 64 << 20  # of a model: ids of beginnings of chats; 0: none are kept
    sequences: int = 256  # of one request to OpenAI's API: its prompts times n

    # What is asked, and what is answered.
    answer_bytes: int = 256 << 20  # of an answer that is read whole
    triton_seconds: float = 10.0  # for Triton to answer what no engine works for
    kept_seconds: float = 5.0  # a connection to Triton that nobody uses; 0: none is kept
    abandoned: int = 1024  # answers that are read to their ends though their clients are gone
    abandoned_seconds: float = 30.0  # for each of them; what was stopped ends in far less
    log_lines: float = 10.0  # a second
    log_burst: int = 50
    access_lines: float = 1000.0  # of requests, a second

    @classmethod
    def of(cls, changed: Mapping[str, float]) -> "Limits":
        """The limits with some of them changed. Raises TrellisError for a name that is none."""
        for name, value in changed.items():
            if name not in cls.__dataclass_fields__:
                names = ", ".join(cls.__dataclass_fields__)
                raise TrellisError(f"limits: {name[:64]}: there is none; there are {names}")
            if not value >= 0:
                raise TrellisError(f"limits: {name}: {value} is not possible; send 0 or more")
        return cls(**changed)  # type: ignore[arg-type]

    def body_limit(self, context: int) -> int:
        """The bytes that a body may have for an engine with a context of so many tokens."""
        return self.body_bytes or max(MIN_BODY_BYTES, BODY_BYTES_PER_TOKEN * context)

    def items_limit(self, context: int = 0) -> int:
        """The values that a body may have for an engine with a context of so many tokens."""
        return self.json_items or max(MIN_JSON_ITEMS, JSON_ITEMS_PER_TOKEN * context)


def connections_for(limits: Limits) -> int:
    """How many connections may be open: each may need one to Triton, too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(min(limits.connections, (files - RESERVED_FILES) // 2), 1)
