# SPDX-License-Identifier: Apache-2.0
"""What the requests of the gateway share: settings, models, what is in flight, how it ends."""

import asyncio
import os
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trellis.gateway.abandoned_requests import AbandonedRequests
from trellis.gateway.access.keys import Keyring
from trellis.gateway.counts import Counts
from trellis.gateway.ids import RequestsInFlight
from trellis.gateway.limits import Limits
from trellis.gateway.logs import AccessLog
from trellis.gateway.metrics.observed import Hook
from trellis.gateway.metrics.page import Figures, written
from trellis.gateway.metrics.record import Record
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.models import Models
from trellis.gateway.parse_process import ParseProcess
from trellis.gateway.request_body import Bodies
from trellis.gateway.step_channel import StepChannels
from trellis.gateway.tracing import Tracing, traceparent
from trellis.gateway.triton import CutOff, Triton
from trellis.gateway.ways import Upstream
from trellis.gateway.worker_mesh import Answerer, WorkerLost, WorkerMesh
from trellis.gateway.worker_table import BODIES, WorkerTable
from trellis.ipc.heartbeats import heartbeats
from trellis.server.gateway_settings import GatewaySettings

Scope = MutableMapping[str, Any]
# What the workers of one gateway ask each other.
STARTED_BY, FIGURES, CHANGED = "started_by", "figures", "models_changed"
CUT_OFF = "the server was stopped before the answer was complete"


class State:
    """One gateway's; made in its running loop."""

    def __init__(
        self,
        settings: GatewaySettings,
        limits: Limits,
        keyring: Keyring | None = None,
        table: WorkerTable | None = None,
    ) -> None:
        """`keyring`: the API keys that are known; None: no key is needed.

        `table`: of the gateway's workers, if there are several.
        """
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.limits = limits
        self.keyring = keyring
        self.draining = False  # this server was asked to stop
        self.server = heartbeats().status  # what the launcher says of the server
        self.started = False  # whether it was ready once
        self._server_pid = settings.triton_pid
        self.triton = Triton(settings.triton_port, limits, loop)
        self.triton_metrics = Triton(settings.triton_metrics_port, limits, loop)
        self.models = Models(
            settings.triton_port,
            settings.model_repo,
            settings.short_way,
            int(limits.prompt_cache_bytes),
        )
        self.registry = Registry(settings.metrics_names)
        self.tracing = Tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None
        # Told of every request.
        self.begun: Hook = _note_trace if self.tracing is None else self.tracing.begin
        self.ended: tuple[Hook, ...] = () if self.tracing is None else (self.tracing.end,)
        if settings.log_format != "none":
            self.ended += (AccessLog(settings.log_prompts),)
        self.in_flight = RequestsInFlight()
        answers: dict[str, Answerer] = {
            STARTED_BY: self.in_flight.started_by,
            FIGURES: self._own_figures,
            CHANGED: self.models.forget,
        }
        self.mesh = WorkerMesh(table, answers)
        self.figures = Figures(
            self.registry, self.triton_metrics, settings.metrics_names, self._other_figures
        )
        self.steps = StepChannels(settings.triton_pid, self.registry.detokenized)
        self.bodies = Bodies(limits.bodies_bytes, table.share(BODIES) if table else None)
        self.upstreams: set[Upstream] = set()  # whose answers clients wait for
        self.abandoned = AbandonedRequests(self.triton, settings.triton_pid, limits, loop)
        self.counts = Counts(settings.triton_pid, loop)
        self.parser = ParseProcess(limits)
        # For long prompts: tokenizers of the usual kinds hold no lock of Python's meanwhile.
        self.encoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "encode")

    def follow_server(self) -> None:
        """Forget what was known of a tritonserver if another stands in its place."""
        pid = self.server.server_pid
        if pid in (0, self._server_pid):
            return
        self._server_pid = self.steps.server_pid = self.counts.server_pid = pid
        self.abandoned.follow(pid)
        self.steps.close()
        self.triton.close()
        self.models.forget()

    async def inner_ids(self, owner: str, client_id: str) -> tuple[list[str], WorkerLost | None]:
        """The inner ids of this owner's requests of that id, whichever workers have them.

        And why those that other workers have are not among them, if they are not.
        """
        own = self.in_flight.started_by(owner, client_id)
        try:
            others = await self.mesh.ask(STARTED_BY, owner, client_id)
        except WorkerLost as error:
            return own, error
        return [*own, *(each for found in others for each in found)], None

    def _own_figures(self) -> list[str]:
        nvidia = (family for _, family in self.registry.nvidia())
        return [written(self.registry.collect()), written(nvidia)]

    async def _other_figures(self) -> list[list[str]]:
        return await self.mesh.ask(FIGURES)

    def cut_off(self) -> None:
        """End every answer that is in flight with an error."""
        for upstream in self.upstreams:
            upstream.interrupt(CutOff(CUT_OFF))

    async def close(self) -> None:
        """End what listens and what encodes."""
        self.mesh.close()
        await self.abandoned.close()
        self.triton.close()
        self.triton_metrics.close()
        self.steps.close()
        self.parser.kill()
        self.counts.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        self.encoders.shutdown(wait=False, cancel_futures=True)


def _note_trace(scope: Scope, record: Record) -> None:
    """Without spans of our own the client's is passed on."""
    record.traceparent = traceparent(scope)
