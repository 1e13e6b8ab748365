# SPDX-License-Identifier: Apache-2.0
"""python -m trellis.gateway SETTINGS: run the gateway, its settings as JSON, until SIGTERM."""

import gc
import socket
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
    table, workers = WorkerTable.inherited(), None
    first = table is None
    try:
        sockets = listening_sockets(*place, shared=not first)
        if settings.metrics_port:
            place = (settings.metrics_address, settings.metrics_port)
            sockets += listening_sockets(*place, shared=not first)
        for listener in sockets:
            listener.listen(BACKLOG)
        if shared and first:
            # Not before: with another gateway that listens there, clients would be asking either.
            for listener in sockets:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if settings.grpc_port:  # where gRPC's library listens later, beside anybody
                place = (settings.grpc_address, settings.grpc_port)
                for unused in listening_sockets(*place):
                    unused.close()
    except OSError as error:
        print(f"HTTP gateway: {':'.join(map(str, place))}: {error}", file=sys.stderr)
        return 1
    gc.freeze()  # what is imported stays
    try:
        if shared and first:
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
