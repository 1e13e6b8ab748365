# SPDX-License-Identifier: Apache-2.0
"""python -m trellis.gateway.parse_worker MEMORY: reads large bodies, one after another.

Each comes on standard input as two lengths (big-endian, 4 bytes each), a JSON object and the body;
each is answered on standard output in the same form. It ends with its input. MEMORY is how many
bytes it may take beyond what it has at the start.
"""

import json
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from trellis.gateway.reading import answer, read_question, read_request
from trellis.gateway.refusals import Refusal

LENGTHS = struct.Struct(">II")


def main() -> int:
    """Read and answer until the input ends."""
    _limit_memory(int(sys.argv[1]))
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    while lengths := reader.read(LENGTHS.size):
        head, body = (reader.read(length) for length in LENGTHS.unpack(lengths))
        _write(writer, *_answered(head, body))
    return 0


def _answered(head: bytes, body: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        made = read_request(*read_question(json.loads(head), body))
    except Refusal as refusal:
        return {"status": refusal.status, "message": refusal.message, "close": refusal.close}, b""
    except MemoryError:
        return {"status": 413, "message": "the body takes too much memory", "close": True}, b""
    return answer(made), made.asked.body


def _write(writer: BinaryIO, head: dict[str, Any], body: bytes) -> None:
    data = json.dumps(head).encode()
    writer.write(LENGTHS.pack(len(data), len(body)) + data + body)
    writer.flush()


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
