# SPDX-License-Identifier: Apache-2.0
"""The gateway as an ASGI application: its paths, and what every request goes through.

A path that is not in the table is no path: nothing is passed on because it is not known.
"""

import logging
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trellis.gateway.access.hosts import Hosts
from trellis.gateway.access.keys import Keys
from trellis.gateway.access.request_ids import RequestIds
from trellis.gateway.access.tls import ClientCertificates
from trellis.gateway.generate import Generate, Infer
from trellis.gateway.metrics.observed import Observed
from trellis.gateway.metrics.record import record_of
from trellis.gateway.metrics.status import StatusFigures
from trellis.gateway.openai.errors import as_openai, is_openai
from trellis.gateway.openai.routes import openai_routes
from trellis.gateway.page import STATUS, Page
from trellis.gateway.refusals import Refusal, hanging, restarting, shown, stopping
from trellis.gateway.relays import READY_PATH, Admin, Index, Live, ModelRelay, Ready, Relay, Startup
from trellis.gateway.sending import send_refusal
from trellis.gateway.state import State
from trellis.gateway.triton import ClientGone

log = logging.getLogger("trellis.gateway")
MODEL = "/v2/models/{name}"
VERSION = "/versions/{version:int}"
HEALTH = "/v2/health/"


def make_app(state: State) -> Starlette:
    """The application of one gateway."""
    app = Starlette(
        routes=[
            *_open_routes(state),
            *_model_routes(state),
            *openai_routes(state),
            *_admin_routes(state),
        ],
        middleware=_middleware(state),
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False
    return app


def _middleware(state: State) -> list[Middleware]:
    """What every request goes through, the outermost first: nothing of its body is read here."""
    access = state.settings.access
    made = [
        Middleware(Observed, state.registry, state.begun, state.ended),
        Middleware(RequestIds, tls=bool(access.tls_cert)),
    ]
    if access.cors_origins:
        made.append(
            Middleware(
                CORSMiddleware,
                allow_origins=access.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("*",),
                expose_headers=("x-request-id", "retry-after"),
            )
        )
    made += [
        Middleware(Errors),
        Middleware(
            Hosts,
            address=state.settings.address,
            allowed=access.allowed_hosts,
            origins=access.cors_origins,
        ),
        Middleware(Draining, state=state),
    ]
    if access.tls_client_ca:
        made.append(Middleware(ClientCertificates))
    if state.keyring is not None:
        made.append(Middleware(Keys, keyring=state.keyring))
    return made


def _open_routes(state: State) -> Iterable[BaseRoute]:
    if state.settings.page:
        yield _get("/", Page())
        yield _get("/status", Page(STATUS))
        yield _get("/status/figures", StatusFigures(state.figures))
    yield _get("/v2/health/live", Live(state, "/v2/health/live"))
    for path in (READY_PATH, "/health"):  # the second is what clients of OpenAI's API ask
        yield _get(path, Ready(state, READY_PATH))
    yield _get("/v2/health/startup", Startup(state, READY_PATH))
    yield _get("/v2", Relay(state, "/v2"))
    yield _get("/v2/models/stats", Relay(state, "/v2/models/stats"))
    yield Route("/v2/repository/index", Index(state), methods=["POST"])


def _model_routes(state: State) -> Iterable[BaseRoute]:
    for path in (MODEL, MODEL + VERSION):
        triton = path.replace(":int", "")
        yield _get(f"{path}/ready", Ready(state, f"{triton}/ready"))
        yield _get(f"{path}/stats", Relay(state, f"{triton}/stats"))
        yield _get(path, ModelRelay(state, triton))
        yield _get(f"{path}/config", ModelRelay(state, f"{triton}/config"))
        for verb in ("generate", "generate_stream"):
            yield Route(f"{path}/{verb}", Generate(state, verb), methods=["POST"])
        yield Route(f"{path}/infer", Infer(state), methods=["POST"])


def _admin_routes(state: State) -> Iterable[BaseRoute]:
    admin = Admin(state)
    for kind in ("system", "cuda"):
        memory = f"/v2/{kind}sharedmemory"
        for path in (f"{memory}/status", f"{memory}/region/{{region}}/status"):
            yield _get(path, admin)
        for path in (f"{memory}/unregister", f"{memory}/region/{{region}}/{{verb}}"):
            yield Route(path, admin, methods=["POST"])
    yield Route("/v2/repository/models/{name}/{verb}", admin, methods=["POST"])
    for path in ("/v2/logging", "/v2/trace/setting", f"{MODEL}/trace/setting"):
        yield Route(path, admin, methods=["GET", "POST"])


def _get(path: str, endpoint: ASGIApp) -> Route:
    return Route(path, endpoint, methods=["GET"])


async def _no_route(request: Request, error: Exception) -> Response:
    """A path that is not in the table, or a method that it does not have."""
    assert isinstance(error, HTTPException)
    path = shown(request.scope["path"])
    allow = (error.headers or {}).get("Allow", "").replace("HEAD, ", "").replace(", HEAD", "")
    refusal = Refusal(
        404,
        f"{path}: there is no such path; ask /v2/models/ensemble/generate",
    )
    if error.status_code == 405:
        refusal = Refusal(
            405, f"{path}: {request.method} is not possible; use {allow}", allow=allow
        )
    if is_openai(request.scope["path"]):
        refusal = as_openai(refusal)
    record_of(request.scope).reject(refusal)
    body = refusal.body()
    response = Response(body, refusal.status)
    response.raw_headers = refusal.headers(len(body))
    return response


class Draining:
    """Turns requests away while the server stops, hangs, or starts anew; but for its health."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise Refusal."""
        if not scope["path"].startswith(HEALTH):
            if self._state.draining:
                raise stopping()
            if self._state.server.restarting:
                raise restarting()
            if hung := self._state.server.hung:
                raise hanging(hung)
        await self._app(scope, receive, send)


class Errors:
    """Makes an answer of what is raised: nothing is raised beyond, so there is no traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._app(scope, receive, send)
        except Refusal as refusal:
            await _send(scope, send, refusal)
        except ClientGone:
            record_of(scope).left = True
        except Exception as error:
            log.error("%s: %s: %s", shown(scope["path"]), type(error).__name__, error)
            failed = Refusal(500, "the gateway failed; its log says why", True)
            await _send(scope, send, failed)


async def _send(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Send why a request is not answered, in the form of its API."""
    refusal = as_openai(refusal) if is_openai(scope["path"]) else refusal
    record_of(scope).reject(refusal)
    await send_refusal(send, refusal)
