# SPDX-License-Identifier: Apache-2.0
"""Sending a whole answer by ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from trellis.gateway.refusals import RETRY_AFTER, Headers, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer whose length is known. `headers`: but for that."""
    made = [*headers, (b"content-length", b"%d" % len(body))]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        made.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Send why a request is not answered."""
    body = refusal.body()
    headers = refusal.headers(len(body))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
