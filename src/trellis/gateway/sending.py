# SPDX-License-Identifier: Apache-2.0
"""Sending a whole answer by ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trellis.gateway.refusals import RETRY_AFTER, Headers, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def send_whole(
    send: Send, status: int, content_type: bytes, body: bytes, headers: Headers | None = None
) -> None:
    """Send an answer, its length first."""
    made = [(b"content-type", content_type)] if content_type else []
    made += [(b"content-length", b"%d" % len(body)), *(headers or ())]
    if status == 503:
        made.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Send why a request is not answered."""
    body = refusal.body()
    headers = refusal.headers(len(body))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
