# SPDX-License-Identifier: Apache-2.0
"""By which names the gateway is asked, and by pages of which sites.

A page of any site may have its own name resolve to 127.0.0.1, and then asks what listens there as
if it were its own server (DNS rebinding). Its name gives it away: loopback is asked by names of
loopback alone, unless others are allowed.
"""

import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from trellis.gateway.access.keys import HEALTH_PATHS
from trellis.gateway.refusals import Refusal, shown
from trellis.gateway.request_body import header

ANY = "*"
OWN_SITE = ("same-origin", "none")  # of Sec-Fetch-Site, which no page can set itself


def is_loopback(name: str) -> bool:
    """Whether a name or address, without its port, is this machine's to itself.

    >>> [is_loopback(name) for name in ("localhost", "127.0.0.9", "::1", "localhost.example")]
    [True, True, True, False]
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """A host without its port, in lower case.

    >>> host_name("[::1]:8000"), host_name("Example.com.:80")
    ('::1', 'example.com')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


class Hosts:
    """Lets in what is asked by a name that is allowed; health is asked by any."""

    def __init__(
        self, app: ASGIApp, address: str, allowed: Iterable[str], origins: Iterable[str]
    ) -> None:
        """`address`: where the gateway listens; `origins`: pages of other sites that may ask."""
        self._app = app
        names = [name.lower() for name in allowed]
        if not names and not is_loopback(address):
            names = [ANY]  # whoever runs it alone knows its names
        self._names = frozenset(names)
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise Refusal."""
        if scope["path"] not in HEALTH_PATHS:
            host = header(scope["headers"], b"host")
            self._check_host(host)
            origin = header(scope["headers"], b"origin")
            if origin:
                self._check_origin(origin, host, header(scope["headers"], b"sec-fetch-site"))
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        known = not name or ANY in self._names or name in self._names or is_loopback(name)
        if not (known or name.endswith(self._suffixes or "/")):
            raise Refusal(
                421,
                f"Host: {shown(host)}: not a name of this server; ask localhost, or launch with"
                " --allowed-host NAME",
            )

    def _check_origin(self, origin: str, host: str, site: str) -> None:
        own = site in OWN_SITE or origin.partition("://")[2].lower() == host.lower()
        if not (own or ANY in self._origins or origin in self._origins):
            raise Refusal(
                403,
                f"Origin: {shown(origin)}: pages of that site may not ask; launch with"
                " --cors-origin ORIGIN to let them",
            )
