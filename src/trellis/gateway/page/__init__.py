# SPDX-License-Identifier: Apache-2.0
"""The pages of the gateway, one file each: `/` to try a server, `/status` to watch it.

Their policy lets run what is in the file, by digest, and lets it ask this server; nothing else: no
resource of another place, no frame around it, no markup made of texts.
"""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.types import Receive, Scope, Send

from trellis.gateway.sending import send_whole

TRY, STATUS = "index.html", "status.html"
_PART = r"<{0}>(.*?)</{0}>"
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)


class Page:
    """The ASGI endpoint of a page; read once, when the gateway starts."""

    def __init__(self, file: str = TRY) -> None:
        page = files(__name__).joinpath(file).read_text("utf-8")
        policy = _POLICY.format(script=_digest(page, "script"), style=_digest(page, "style"))
        self._body = page.encode()
        self._headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cache-control", b"no-cache"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one GET."""
        await send_whole(send, 200, self._headers, self._body)


def _digest(page: str, element: str) -> str:
    """The source expression of the one element of that name."""
    (content,) = re.findall(_PART.format(element), page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
