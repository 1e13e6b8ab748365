# SPDX-License-Identifier: Apache-2.0
"""API keys: whose a request is, before anything of its body is read."""

import hmac
import logging
import time
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from trellis.gateway.access.accounts import Account, Clock
from trellis.gateway.access.key_file import KeyLimits, digest, read_keys
from trellis.gateway.refusals import Headers, Refusal
from trellis.gateway.sending import ALLOWANCE
from trellis.gateway.worker_table import WorkerTable

log = logging.getLogger("trellis.gateway")
# Answered without a key: what supervisors ask, and pages without data. docs/gateway.md lists them.
HEALTH_PATHS = frozenset(("/health", "/v2/health/live", "/v2/health/ready", "/v2/health/startup"))
OPEN_PATHS = HEALTH_PATHS | {"/", "/status"}
AUTHORIZATION, API_KEY = b"authorization", b"x-api-key"
SECRETS = (AUTHORIZATION, API_KEY)
BEARER = "bearer "
KEY_BYTES = 512  # of a header; ours have 51
CALLER = "trellis.caller"  # of a scope: the name of the key


class Keyring:
    """The keys of a file, and what each takes."""

    def __init__(
        self, path: Path, clock: Clock = time.monotonic, table: WorkerTable | None = None
    ) -> None:
        """`table`: of the gateway's workers, if there are several. Raises KeyFileError."""
        self._path = path
        self._table = table
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._digests: list[tuple[str, Account]] = []
        self.load()

    def load(self) -> int:
        """Read the file anew; how many keys it has. Raises KeyFileError, and keeps the old ones."""
        keys = read_keys(self._path)
        accounts = {}
        for name, entry in keys.items():
            account = accounts[name] = self._accounts.get(name) or self._new(name, entry)
            account.change(entry)
        self._accounts = accounts
        self._digests = [(entry.sha256, accounts[name]) for name, entry in keys.items()]
        return len(keys)

    def _new(self, name: str, limits: KeyLimits) -> Account:
        numbers = None if self._table is None else self._table.key(name)
        return Account(name, limits, self._clock, numbers)

    def find(self, headers: Headers) -> Account:
        """Whose request it is. Raises Refusal where it has no key of the file."""
        sent = sent_keys(headers)
        if not sent:
            raise _unknown(
                "no API key: send Authorization: Bearer KEY, or X-API-Key: KEY",
            )
        for key in sent:
            account = self.account(key)
            if account is not None:
                return account
        raise _unknown("the API key is not known here; ask whoever runs this server for one")

    def account(self, key: str) -> Account | None:
        """Whose key it is. It takes as long for each that is wrong."""
        made, found = digest(key), None
        for known, account in self._digests:
            if hmac.compare_digest(made, known):
                found = account
        return found


def sent_keys(headers: Headers) -> list[str]:
    """The keys that a request has: one of each header at most."""
    found = []
    for name, value in headers:
        if name in SECRETS and len(value) <= KEY_BYTES:
            text = value.decode("latin-1").strip()
            if name == API_KEY:
                found.append(text)
            elif text[: len(BEARER)].lower() == BEARER:
                found.append(text[len(BEARER) :].strip())
    return [key for key in found[:2] if key]


class Keys:
    """Lets in requests with a key, within its limits."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise Refusal."""
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        account = self._keyring.find(scope["headers"])
        # Nothing behind here has a use for it, and what has no key cannot log one.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in SECRETS]
        with account.request() as allowance:
            scope[CALLER], scope[ALLOWANCE] = account.name, allowance
            await self._app(scope, receive, send)


def _unknown(what: str) -> Refusal:
    return Refusal(401, what, code="invalid_api_key")
