# SPDX-License-Identifier: Apache-2.0
"""python -m trellis.gateway SETTINGS: run the gateway, its settings as JSON, until SIGTERM."""

import gc
import sys

from trellis.errors import TrellisError
from trellis.gateway.server import BACKLOG, Server, listening_sockets
from trellis.gateway.worker_table import WorkerTable
from trellis.gateway.workers import Workers
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.server.gateway_settings import GatewaySettings


def main() -> int:
    """Run the gateway; the exit status."""
    show_stacks_on_signal()
    settings = GatewaySettings.of(sys.argv[1])
    place, shared = (settings.address, settings.port), settings.workers > 1
    try:
        sockets = listening_sockets(*place, shared)
        if settings.metrics_port:
            place = (settings.metrics_address, settings.metrics_port)
            sockets += listening_sockets(*place, shared)
        for listener in sockets:
            listener.listen(BACKLOG)
    except OSError as error:
        print(f"HTTP gateway: {':'.join(map(str, place))}: {error}", file=sys.stderr)
        return 1
    gc.freeze()  # what is imported stays
    try:
        table, workers = WorkerTable.inherited(), None
        if shared and table is None:
            table = WorkerTable.make(settings.workers)
            workers = Workers(settings, table)
        server = Server(settings, table, workers)
    except (TrellisError, OSError) as error:
        print(f"HTTP gateway: {error}", file=sys.stderr)
        return 1
    server.run(sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
