# SPDX-License-Identifier: Apache-2.0
"""Three doors for requests: which targets, which headers and which models are let in.

Triton 24.10 ends by a form of some megabytes, and any client may call a body a form: `curl -d` does
so by default. A request with `Upgrade` has an end that a proxy before the gateway may see
elsewhere. The models inside an ensemble take tensors as they are, and some tensors end the server.
"""

import re
from dataclasses import replace

from trellis.gateway.models import Model
from trellis.gateway.nesting import JSON_LENGTH
from trellis.gateway.replies import JSON, Refusal

ABSOLUTE = re.compile(rb"https?://[^/?#]*(?=/)", re.IGNORECASE)
TWO_READINGS = re.compile(rb"[%\\#\x00-\x20\x7f]|//|/\.\.?(?:/|$)")
ASKS = re.compile(
    rb"(/v2/models/[^/]+(?:/versions/[0-9]+)?)/(?:infer|generate|generate_stream)", re.DOTALL
)
SEEMS_TO_ASK = re.compile(rb"/v2/models/[^/]+/.*(?:infer|generate)", re.IGNORECASE | re.DOTALL)
CONTENT_TYPE, BINARY = b"content-type", b"application/octet-stream"
UPGRADES = frozenset((b"upgrade", b"http2-settings"))

Headers = list[tuple[bytes, bytes]]


def origin_form(target: bytes) -> bytes:
    """The target as `/path?query`. Raises Refusal for a path that two servers may read in two ways.

    >>> origin_form(b"HTTP://host:1/v2/models/m/infer?x=%41")
    b'/v2/models/m/infer?x=%41'
    """
    found = ABSOLUTE.match(target)
    target = target[found.end() :] if found else target
    if not target.startswith(b"/") or TWO_READINGS.search(target.partition(b"?")[0]):
        raise Refusal(
            400,
            "the path has to begin with / and to be written plainly, without %, #, //, . and ..;"
            " send it as /v2/models/ensemble/generate",
            close=True,
        )
    return target


def asked_path(target: bytes) -> str:
    """The path of the model that a request asks, '' for requests that ask none.

    Raises Refusal for what is nearly such a path.

    >>> asked_path(b"/v2/models/m/versions/1/infer?x"), asked_path(b"/v2/models/m/config")
    ('/v2/models/m/versions/1', '')
    """
    path = target.partition(b"?")[0]
    found = ASKS.fullmatch(path)
    if found is None and SEEMS_TO_ASK.match(path):
        raise Refusal(404, "there is no such path; ask /v2/models/ensemble/generate", close=True)
    return found[1].decode("latin-1") if found else ""


def check_upgrade(headers: Headers) -> None:
    """Raise Refusal for a request that asks for another protocol."""
    for name, value in headers:
        lowered = name.lower()
        options = value.lower().split(b",") if lowered == b"connection" else []
        if lowered in UPGRADES or any(option.strip() in UPGRADES for option in options):
            raise Refusal(
                400,
                "Upgrade: only HTTP/1.1 is spoken here; leave out Upgrade, HTTP2-Settings and"
                " Connection: upgrade",
                close=True,
            )


def with_own_type(target: bytes, headers: Headers) -> Headers:
    """The headers with the type that Triton reads a body as, whatever the client called it."""
    names = {name.lower() for name, _ in headers}
    binary = JSON_LENGTH in names and target.partition(b"?")[0].endswith(b"/infer")
    kept = [pair for pair in headers if pair[0].lower() != CONTENT_TYPE]
    return [*kept, (b"Content-Type", BINARY if binary else JSON)]


def check_inner(model: Model | Refusal) -> None:
    """Raise Refusal for a model that is no ensemble, or that cannot be asked."""
    if isinstance(model, Refusal):
        raise replace(model)
    if not model.is_ensemble:
        raise Refusal(
            404,
            f"{model.name}: over HTTP only ensembles are asked; ask ensemble, or launch with"
            " --expose-inner-models",
        )
