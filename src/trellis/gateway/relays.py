# SPDX-License-Identifier: Apache-2.0
"""What is asked of Triton as it is: health, metadata, configurations, statistics, the index.

Each request is written anew, and each answer is read whole under a limit before it goes on.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from trellis.gateway.body import read
from trellis.gateway.json_bounds import check_bounds
from trellis.gateway.models import check_inner, model_path
from trellis.gateway.refusals import JSON, Headers, Refusal, hanging, stopping
from trellis.gateway.request_body import check_content_type, read_body
from trellis.gateway.sending import Receive, Scope, Send, send_whole
from trellis.gateway.state import CHANGED, State
from trellis.gateway.triton import TritonLost
from trellis.repository.manifest import ensembles_of
from trellis.server.admin_endpoints import HEADER
from trellis.server.gateway_settings import GatewaySettings

INDEX_BYTES = 4096  # of a body that says {"ready": true}
READY_PATH = "/v2/health/ready"
INDEX_PATH = "/v2/repository/index"


class Relay:
    """A GET whose path is one of the gateway's own table. An ASGI application."""

    def __init__(self, state: State, path: str) -> None:
        """`path`: as Triton has it, with {placeholders} for the parameters of the route."""
        self._state = state
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal."""
        await self._answer(scope, send)

    async def _answer(self, scope: Scope, send: Send) -> int:
        """The status that was answered. Raises Refusal."""
        await self._check(scope)
        path = self._path.format_map(scope.get("path_params", {}))
        return await relay(self._state, send, "GET", path)

    async def _check(self, scope: Scope) -> None:
        """Raise Refusal for what is not shown."""


class Live(Relay):
    """Liveness: of this event loop, which answers, and of the server behind; nothing may hang.

    While the launcher starts the server anew there is nothing to be done from outside: it lives.
    """

    async def _answer(self, scope: Scope, send: Send) -> int:
        if not self._state.server.restarting:
            return await super()._answer(scope, send)
        await send_whole(send, 200, [], b"")
        return 200

    async def _check(self, scope: Scope) -> None:
        if hung := self._state.server.hung:
            raise hanging(hung)


class Ready(Relay):
    """Readiness: of the server, if it was not asked to stop, and its engines can be asked."""

    async def _answer(self, scope: Scope, send: Send) -> int:
        status = await super()._answer(scope, send)
        self._state.started |= status == 200 and self._path == READY_PATH
        return status

    async def _check(self, scope: Scope) -> None:
        if self._state.draining:
            raise stopping()
        if hung := self._state.server.hung:
            raise hanging(hung)
        self._state.follow_server()
        for name in await self._state.steps.lost():
            if await self._loaded(name):
                raise Refusal(503, f"{name}: its step socket is closed; the server has to end")
            self._state.steps.forget(name)

    async def _loaded(self, name: str) -> bool:
        try:
            reply = await self._state.triton.ask("GET", f"{model_path(name)}/ready")
        except TritonLost as error:
            raise error.refusal from error
        return reply.status == 200


class Startup(Ready):
    """Whether the server was ready once, for a probe that gives it time to load its models."""

    async def _answer(self, scope: Scope, send: Send) -> int:
        if not self._state.started:
            return await super()._answer(scope, send)
        await send_whole(send, 200, [], b"")
        return 200


class ModelRelay(Relay):
    """What is shown of ensembles: metadata and configuration."""

    async def _check(self, scope: Scope) -> None:
        if not self._state.settings.expose_inner_models:
            params = {
                key: scope["path_params"][key]
                for key in ("name", "version")
                if key in scope["path_params"]
            }
            check_inner(await self._state.models.find(model_path(**params)))


def opening(settings: GatewaySettings) -> Headers:
    """The header that opens what Triton shuts to clients."""
    key = settings.admin_key
    return [(HEADER.encode(), key.encode())] if key else []


class Index:
    """Which models the repository has: the one thing of model control that is open."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal, ClientGone."""
        asked = await read_object(self._state, scope, receive, INDEX_BYTES)
        ready = asked.get("ready", False)
        if not isinstance(ready, bool) or asked.keys() - {"ready"}:
            raise Refusal(400, 'the index takes {"ready": true} or nothing; leave the rest out')
        body = json.dumps({"ready": ready}).encode()
        await relay(self._state, send, "POST", INDEX_PATH, body, opening(self._state.settings))


class Admin:
    """Shared memory, model control, log settings, traces: shut unless the launcher opened them."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal, ClientGone."""
        if not self._state.settings.allow_admin_endpoints:
            raise Refusal(
                403,
                "shared memory, model control, log settings and traces are shut; launch with"
                " --allow_admin_endpoints to open them",
                close=True,
            )
        body = b""
        if scope["method"] == "POST":
            most = self._state.limits.body_limit(0)
            asked = await read_object(self._state, scope, receive, most)
            if scope["path_params"].get("verb") == "unload":
                asked = await self._with_steps(scope["path_params"].get("name", ""), asked)
            body = json.dumps(asked).encode()
        loads = scope["path"].startswith("/v2/repository/")
        seconds = self._state.limits.request_seconds if loads else 0.0
        status = await relay(
            self._state, send, scope["method"], scope["path"], body, seconds=seconds
        )
        if loads and status == 200:
            self._state.models.forget()
            self._state.mesh.tell(CHANGED)

    async def _with_steps(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """What unloads a model that `make repo` made with its steps, where Triton keeps them.

        The other ensembles of these steps go first: Triton would load the steps anew for them.
        """
        repository = self._state.settings.model_repo
        ensembles = ensembles_of(Path(repository), name) if repository else []
        parameters = asked.get("parameters", {})
        if name not in ensembles or not isinstance(parameters, dict):
            return asked
        for other in ensembles:
            if other != name:
                path = f"/v2/repository/models/{other}/unload"
                with contextlib.suppress(TritonLost):
                    await self._state.triton.ask("POST", path, b"{}")
        return {**asked, "parameters": {"unload_dependents": True, **parameters}}


async def read_object(state: State, scope: Scope, receive: Receive, most: int) -> dict[str, Any]:
    """The JSON object of a request of at most `most` bytes; {} for an empty body.

    Raises Refusal, ClientGone.
    """
    check_content_type(scope["headers"])
    with state.bodies.room() as room:
        body = await read_body(receive, scope["headers"], most, room)
    if not body:
        return {}
    check_bounds(body, state.limits)
    return read(body)


async def relay(
    state: State,
    send: Send,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Headers | None = None,
    seconds: float = 0.0,
) -> int:
    """Ask Triton, send what it answers; the status. Raises Refusal if it does not answer.

    `seconds`: that it may take, by default what the limits say.
    """
    sent = [*(headers or ()), *([(b"Content-Type", JSON)] if body else ())]
    try:
        reply = await state.triton.ask(method, path, body, sent, seconds)
    except TritonLost as error:
        raise error.refusal from error
    content_type = [(b"content-type", reply.content_type)] if reply.content_type else []
    await send_whole(send, reply.status, content_type, reply.body)
    return reply.status
