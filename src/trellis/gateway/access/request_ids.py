# SPDX-License-Identifier: Apache-2.0
"""An id for every request: the client's `X-Request-Id`, or a new one; returned, and for the log."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trellis.gateway.ids import new_id
from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.errors import as_openai, is_openai
from trellis.gateway.refusals import Refusal
from trellis.gateway.request_body import header
from trellis.gateway.sending import OWN_ID, send_refusal

HEADER = b"x-request-id"
SENT = re.compile(r"[A-Za-z0-9._~+/=:@,;-]{1,128}")  # what no log and no header is broken by
# Browsers that came by TLS once do not come without it again.
HSTS = (b"strict-transport-security", b"max-age=31536000")


class RequestIds:
    """Gives a request its id, and its answer the header."""

    def __init__(self, app: ASGIApp, tls: bool) -> None:
        """`tls`: whether answers say that they only come by TLS."""
        self._app = app
        self._more = [HSTS] if tls else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        own, sent = new_id(), header(scope["headers"], HEADER)
        fits = not sent or SENT.fullmatch(sent)
        shown = sent if sent and fits else own
        scope[OWN_ID] = own
        record = record_of(scope)
        record.request_id = shown
        more = [(HEADER, shown.encode()), *self._more]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        if fits:
            await self._app(scope, receive, send_with_id)
            return
        refusal = Refusal(
            400, "X-Request-Id: send 1 to 128 of A-Z a-z 0-9 . _ ~ + / = : @ , ; -, or leave it out"
        )
        shaped = as_openai(refusal) if is_openai(scope["path"]) else refusal
        record.reject(shaped)
        await send_refusal(send_with_id, shaped)
