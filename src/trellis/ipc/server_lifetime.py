# SPDX-License-Identifier: Apache-2.0
"""A model's process ends with its server, however that ended.

Triton's Python backend does not see to it: a server that is killed in the midst of requests leaves
the processes of its models asleep, with Python's lock held and the engine's memory in them, so no
thread of theirs could look after it. The kernel can: the launcher gives the server the writing end
of a pipe that nobody ever writes to; when the last process that has it open is gone, the kernel
sends SIGKILL to all that read it in this way.
"""

import fcntl
import logging
import os
import signal

LIFELINE = "TRELLIS_LIFELINE"  # the descriptor, where the launcher started the server

log = logging.getLogger("trellis.lifetime")


def end_with_server() -> None:
    """Have the kernel kill this process once the server's is gone, if the launcher provided it."""
    writing = os.environ.pop(LIFELINE, "")
    if not writing:
        return
    try:
        # Inherited from the server; read from here on, so that only the server keeps it open.
        reading = os.open(f"/proc/self/fd/{int(writing)}", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        os.close(int(writing))
    except (OSError, ValueError) as error:
        log.warning("this process may outlive a server that is killed (%s)", error)
