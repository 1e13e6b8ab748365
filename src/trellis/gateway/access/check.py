# SPDX-License-Identifier: Apache-2.0
"""What of the access settings cannot work, said by the launcher before anything is started."""

import re
from pathlib import Path

from trellis.errors import TrellisError
from trellis.gateway.access.key_file import read_keys
from trellis.gateway.access.tls import make_context
from trellis.server.access_settings import AccessSettings

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+")
HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*")


def check_access(access: AccessSettings) -> None:
    """Raise TrellisError for a file that cannot be used."""
    if access.api_keys:
        read_keys(Path(access.api_keys))
    if access.tls_cert:
        make_context(access)
    elif access.tls_key or access.tls_client_ca:
        raise TrellisError("--tls-key and --tls-client-ca: only beside --tls-cert")
    for origin in access.cors_origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise TrellisError(
                f"--cors-origin {origin[:64]}: no origin; write https://app.example, without a path"
            )
    for name in access.allowed_hosts:
        if not HOST.fullmatch(name):
            raise TrellisError(
                f"--allowed-host {name[:64]}: no name; write llm.example.com, without a port"
            )
