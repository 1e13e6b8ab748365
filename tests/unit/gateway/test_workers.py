# SPDX-License-Identifier: Apache-2.0
"""Several processes of one gateway, and another gateway that is to have their ports."""

import dataclasses
import subprocess
from pathlib import Path

import psutil
import pytest

from support.gateway_process import gateway
from support.gateway_wire import Wire, wait_for
from support.key_files import KeyFile
from trellis.server.access_settings import AccessSettings
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports

WORKERS = 2


@pytest.mark.parametrize("taken", ["port", "metrics_port", "grpc_port"])
def test_another_gateway_gets_none_of_its_ports(taken: str, tmp_path: Path) -> None:
    """Else clients of one port would be asking two servers."""
    keys = KeyFile(tmp_path / "keys.yaml")
    keys.add("one")
    metrics, grpc, behind, *others = free_ports(6)
    first = GatewaySettings(
        "127.0.0.1",
        0,
        triton_port=1,
        triton_pid=1,
        drain_timeout=1.0,
        metrics_port=metrics,
        access=AccessSettings(api_keys=str(keys.path)),
        grpc_port=grpc,
        triton_grpc_port=behind,
        workers=WORKERS,
    )
    with gateway(
        1,
        metrics_port=metrics,
        access=first.access,
        grpc_port=grpc,
        triton_grpc_port=behind,
        workers=WORKERS,
    ) as one:
        process = psutil.Process(one.process.pid)
        wait_for(lambda: len(listening(process, grpc)) == WORKERS)
        assert len(listening(process, one.port)) == WORKERS
        assert len(listening(process, metrics)) == WORKERS
        ports = dict(zip(("port", "metrics_port", "grpc_port"), others, strict=True))
        ports[taken] = {"port": one.port, "metrics_port": metrics, "grpc_port": grpc}[taken]
        settings = dataclasses.replace(
            first,
            port=ports["port"],
            metrics_port=ports["metrics_port"],
            grpc_port=ports["grpc_port"],
        )
        ended = subprocess.run(
            settings.command(), cwd=IMPORTED_FROM, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1
        assert f"127.0.0.1:{ports[taken]}: " in ended.stderr
        assert "Address already in use" in ended.stderr
        Wire(one.port).socket.close()


def listening(process: psutil.Process, port: int) -> set[int]:
    """Which of a gateway's processes listen there."""
    return {
        each.pid
        for each in (process, *process.children())
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
