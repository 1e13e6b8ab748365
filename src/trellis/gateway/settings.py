# SPDX-License-Identifier: Apache-2.0
"""The limits of the gateway."""

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024  # of /generate alone, whose JSON is read whole
MAX_AHEAD_BYTES = 256 * 1024  # of requests that a client sends before it has its answer
MAX_DRAINS = 1024  # answers that are read to their ends though their clients are gone
DRAIN_SECONDS = 30.0  # for each of them; what was stopped ends in far less
STALL_SECONDS = 60.0  # a request that began and does not go on for so long is given up
LONG_BODY = 1024  # bytes of a request: beyond, another thread reads and encodes it
MAX_ENGINE_BODY = 16_384  # beyond, the ensemble: JSON of its ids would cost more than it saves
