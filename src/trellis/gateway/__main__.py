# SPDX-License-Identifier: Apache-2.0
"""python -m trellis.gateway SETTINGS: run the gateway, its settings as JSON, until SIGTERM."""

import gc
import sys

from trellis.errors import TrellisError
from trellis.gateway.server import BACKLOG, Server, listening_sockets
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.server.gateway_settings import GatewaySettings


def main() -> int:
    """Run the gateway; the exit status."""
    show_stacks_on_signal()
    settings = GatewaySettings.of(sys.argv[1])
    place = (settings.address, settings.port)
    try:
        sockets = listening_sockets(*place)
        if settings.metrics_port:
            place = (settings.metrics_address, settings.metrics_port)
            sockets += listening_sockets(*place)
        for listener in sockets:
            listener.listen(BACKLOG)
    except OSError as error:
        print(f"HTTP gateway: {':'.join(map(str, place))}: {error}", file=sys.stderr)
        return 1
    gc.freeze()  # what is imported stays
    try:
        server = Server(settings)
    except TrellisError as error:
        print(f"HTTP gateway: {error}", file=sys.stderr)
        return 1
    server.run(sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
