# SPDX-License-Identifier: Apache-2.0
"""Triton's endpoints that clients have no business with: shut, by a key that nobody is told.

Shared memory (a client names memory of this machine that Triton reads and writes), model control,
log settings and traces (files that Triton writes where it is told).
"""

import mmap
import secrets
from pathlib import Path

ENDPOINTS = ("shared-memory", "model-repository", "logging", "trace")
KEYED = ("metadata", "inference", "model-config", "statistics")  # of gRPC, where keys are asked for
HTTP, GRPC = "http-restricted-api", "grpc-restricted-protocol"
HEADER = "trellis-admin"


def new_key() -> str:
    """A key that nobody is told but the gateway, which shows clients the repository's index."""
    return secrets.token_urlsafe(32)


def restrictions(binary: Path, key: str, admin: bool = False, keyed: bool = False) -> list[str]:
    """The arguments that shut them, as far as this server, which may be an old one, has them.

    `admin`: open the endpoints. `keyed`: shut gRPC but for its health to all but the gateway, since
    Triton knows no keys of clients; a server that cannot has no gRPC then.
    """
    http = () if admin else ENDPOINTS
    grpc = (*http, *(KEYED if keyed else ()))
    made = []
    for option, endpoints in ((HTTP, http), (GRPC, grpc)):
        if endpoints and _has(binary, option):
            made.append(f"--{option}={','.join(endpoints)}:{HEADER}={key}")
        elif keyed and option == GRPC:
            made.append("--allow-grpc=false")
    return made


def _has(binary: Path, option: str) -> bool:
    """Whether an executable knows an option: asking it by --help takes longer than to look."""
    with binary.open("rb") as file:
        if not binary.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(option.encode()) >= 0
