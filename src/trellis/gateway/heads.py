# SPDX-License-Identifier: Apache-2.0
"""The head of a request: one reading, or none.

llhttp parses strictly: no bare CR or LF, no folded header, no space before a colon, one length.
What is refused here passes llhttp, and may still mean one thing to a proxy and another to us.
"""

import re

from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Headers, Refusal, shown

ABSOLUTE = re.compile(rb"https?://[^/?#]*(?=/)", re.IGNORECASE)
PLAIN = re.compile(rb"/|(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
DOTS = re.compile(rb"/\.\.?(?:/|\Z)")
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
UPGRADES = frozenset((b"upgrade", b"http2-settings"))
NAME_BYTES = 64  # of a model's name
METHODS = frozenset((b"GET", b"POST", b"OPTIONS"))  # beyond, nothing is known to any path


def check_head(
    method: bytes, version: str, target: bytes, headers: Headers, limits: Limits
) -> bytes:
    """The path of a request. Raises Refusal for one that is not let in.

    `headers`: as they came, the names in lower case.
    """
    if version not in ("1.0", "1.1"):
        raise Refusal(505, f"HTTP/{version}: use HTTP/1.1", close=True)
    if method not in METHODS:
        hint = {b"CONNECT": "this is no proxy", b"HEAD": "use GET"}.get(method, "use GET or POST")
        raise Refusal(405, f"{method.decode()}: {hint}", close=True, allow="GET, POST")
    size = len(target) + sum(len(name) + len(value) for name, value in headers)
    if size > limits.head_bytes or len(headers) > limits.headers:
        raise head_too_large(limits)
    named: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        named.setdefault(name, []).append(value)
    _check_host(named, version)
    _check_framing(named, version)
    _check_upgrade(named)
    path = plain_path(target)
    if len(path) > limits.path_bytes:
        raise Refusal(414, f"the path is longer than {limits.path_bytes} bytes", close=True)
    for name in path.split(b"/"):
        if len(name) > NAME_BYTES:  # Triton would repeat it in its errors
            said = shown(name.decode("latin-1"))
            what = f"{said}: a name in a path has at most {NAME_BYTES} bytes"
            raise Refusal(404, what, close=True)
    return path


def plain_path(target: bytes) -> bytes:
    """The path of a target, without its query. Raises Refusal for one with two readings.

    >>> plain_path(b"HTTP://host:1/v2/models/m/infer?x=%41")
    b'/v2/models/m/infer'
    """
    found = ABSOLUTE.match(target)
    path = (target[found.end() :] if found else target).partition(b"?")[0]
    if not PLAIN.fullmatch(path) or DOTS.search(path):
        raise Refusal(
            400,
            "the path has to begin with / and to be written plainly, without %, #, //, . and ..;"
            " send it as /v2/models/ensemble/generate",
            close=True,
        )
    return path


def _check_host(named: dict[bytes, list[bytes]], version: str) -> None:
    hosts = named.get(b"host", [])
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise Refusal(400, f"Host: sent {len(hosts)} times; send it once", close=True)
    if hosts and not HOST.fullmatch(hosts[0]):
        name = shown(hosts[0].decode("latin-1"))
        raise Refusal(400, f"Host: {name}: not a host; send its name or address", close=True)


def _check_framing(named: dict[bytes, list[bytes]], version: str) -> None:
    lengths, encodings = (named.get(name, []) for name in (b"content-length", b"transfer-encoding"))
    if len(lengths) + len(encodings) > 1:
        raise Refusal(400, "Content-Length and Transfer-Encoding: send one of them", close=True)
    if lengths and not lengths[0].isdigit():
        raise Refusal(400, "Content-Length: not a number; send the bytes of the body", close=True)
    if encodings and (encodings[0].lower() != b"chunked" or version == "1.0"):
        raise Refusal(400, "Transfer-Encoding: only chunked is understood", close=True)
    for value in named.get(b"expect", []):
        if value.lower() != b"100-continue":
            what = shown(value.decode("latin-1"))
            raise Refusal(417, f"Expect: {what}: only 100-continue is understood", close=True)


def _check_upgrade(named: dict[bytes, list[bytes]]) -> None:
    """Before nginx the end of an upgraded request may be elsewhere than for us."""
    options = b",".join(named.get(b"connection", [])).lower().split(b",")
    if UPGRADES & named.keys() or any(option.strip() in UPGRADES for option in options):
        raise Refusal(
            400,
            "Upgrade: only HTTP/1.1 is spoken here; leave out Upgrade, HTTP2-Settings and"
            " Connection: upgrade",
            close=True,
        )


def head_too_large(limits: Limits) -> Refusal:
    """More than any request needs."""
    return Refusal(
        431,
        f"the request's head is larger than {limits.head_bytes} bytes or has more than"
        f" {limits.headers} headers",
        close=True,
    )
