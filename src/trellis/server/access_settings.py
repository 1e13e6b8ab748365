# SPDX-License-Identifier: Apache-2.0
"""Who may ask the gateway: what its process and the launcher are started with."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class AccessSettings:
    """Paths of files, never what is in them: a command line is shown to every user."""

    api_keys: str = ""  # the file of API keys; "": no key is needed
    tls_cert: str = ""  # the certificate and its chain, PEM; "": no TLS
    tls_key: str = ""  # its private key, PEM
    tls_client_ca: str = ""  # whose certificates clients need, PEM; "": they need none
    cors_origins: tuple[str, ...] = ()  # pages of other sites that may ask; "*": every page
    allowed_hosts: tuple[str, ...] = ()  # names by which it may be asked; (): see hosts.py

    @property
    def reloads(self) -> bool:
        """Whether there are files to be read again on SIGHUP."""
        return bool(self.api_keys or self.tls_cert)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "AccessSettings":
        """What `dataclasses.asdict` made, and JSON of it."""
        read: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items()
        }
        return cls(**read)

    def absolute(self) -> "AccessSettings":
        """The same for a process in another folder."""
        return dataclasses.replace(
            self,
            api_keys=_absolute(self.api_keys),
            tls_cert=_absolute(self.tls_cert),
            tls_key=_absolute(self.tls_key),
            tls_client_ca=_absolute(self.tls_client_ca),
        )


NO_ACCESS_SETTINGS = AccessSettings()


def _absolute(path: str) -> str:
    return os.path.abspath(Path(path).expanduser()) if path else ""
