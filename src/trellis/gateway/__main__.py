# SPDX-License-Identifier: Apache-2.0
"""python -m trellis.gateway SETTINGS: run the gateway, its settings as JSON, until SIGTERM."""

import asyncio
import gc
import json
import sys

from trellis.gateway.server import Server
from trellis.server.gateway_settings import GatewaySettings


def main() -> int:
    """Run the gateway; the exit status."""
    settings = GatewaySettings(**json.loads(sys.argv[1]))
    try:
        import uvloop  # a third of the CPU; without it asyncio's own loop does

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    gc.freeze()  # what is imported stays
    try:
        loop.run_until_complete(Server(settings, loop).run())
    except OSError as error:
        print(f"HTTP gateway: {settings.address}:{settings.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
