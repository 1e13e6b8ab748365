# SPDX-License-Identifier: Apache-2.0
"""Sending a whole answer by ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, NamedTuple

from trellis.gateway.access.accounts import UNBOUNDED, Allowance
from trellis.gateway.refusals import RETRY_AFTER, Headers, Refusal

# An extension of ASGI's scope: `write(data) -> bool` writes a piece of a body that has begun,
# unless the client is behind. Starlette's layers and a task's switch cost more than a token's text.
WRITE_NOW = "trellis.write_now"
OWN_ID = "trellis.own_id"  # of a scope: the id that the gateway gave its request
CERTIFIED = "trellis.certified"  # of a scope: whether its client has shown a certificate
ALLOWANCE = "trellis.allowance"  # of a scope: what counts the tokens of its request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Write = Callable[[bytes], bool]


class Client(NamedTuple):
    """The ways to and from whoever asked."""

    receive: Receive
    send: Send
    write: Write  # see WRITE_NOW
    allowance: Allowance = UNBOUNDED  # counts the tokens that the request takes


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer whose length is known. `headers`: but for that."""
    made = [*headers, (b"content-length", b"%d" % len(body))]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        made.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def client_of(scope: Scope, receive: Receive, send: Send) -> Client:
    """The ways to and from whoever sent a request; one writes at once, where the server can."""
    extension = scope.get("extensions", {}).get(WRITE_NOW)
    write: Write = extension["write"] if extension else lambda _: False
    return Client(receive, send, write, scope.get(ALLOWANCE, UNBOUNDED))


async def until_left(receive: Receive) -> None:
    """Wait for the client to leave. `receive`: after the body."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Send why a request is not answered."""
    body = refusal.body()
    headers = refusal.headers(len(body))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
