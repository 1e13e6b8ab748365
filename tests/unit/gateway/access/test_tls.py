"""TLS before the gateway: versions, certificates, clients that never shake hands."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from support.certificates import Authority, Signed
from support.fake_triton_http import FakeTriton
from support.gateway_process import Running, gateway
from support.gateway_wire import ENSEMBLE, get, wait_for
from trellis.errors import TrellisError
from trellis.gateway.access.check import check_access
from trellis.gateway.access.tls import (
    Certificates,
    TlsDoor,
    TlsFileError,
    TlsProtocol,
    make_context,
)
from trellis.gateway.limits import Limits
from trellis.gateway.server_state import REFUSED_AT_ONCE, GatewayServerState
from trellis.server.access_settings import AccessSettings

HEALTH = "/v2/health/live"
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority: Authority) -> Signed:
    return authority.sign("server", LOOPBACK)


@pytest.fixture(scope="module")
def front(triton: FakeTriton, signed: Signed) -> Iterator[Running]:
    access = AccessSettings(tls_cert=str(signed.cert), tls_key=str(signed.key))
    limits = {"handshake_seconds": 1, "connections_per_address": 20}
    with gateway(triton.port, os.getpid(), access=access, limits=limits) as running:
        yield running


def trusting(authority: Authority, client: Signed | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def asked(front: Running, context: ssl.SSLContext, path: str = ENSEMBLE) -> int:
    url = f"https://{LOOPBACK}:{front.port}{path}"
    with httpx.Client(verify=context) as client:
        return client.get(url).status_code


def subject(front: Running, context: ssl.SSLContext) -> str:
    """The name in the certificate that the gateway shows."""
    with (
        socket.create_connection((LOOPBACK, front.port)) as plain,
        context.wrap_socket(plain, server_hostname=LOOPBACK) as wrapped,
    ):
        found = wrapped.getpeercert()
    assert found is not None
    parts: Any = found["subject"]
    return str({name: value for ((name, value),) in parts}["commonName"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_it_answers_over_tls(front: Running, authority: Authority, version: ssl.TLSVersion) -> None:
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    assert asked(front, context) == 200


def test_older_versions_are_not_spoken(front: Running, authority: Authority) -> None:
    context = trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        asked(front, context)


def test_plain_http_gets_no_answer(front: Running) -> None:
    with socket.create_connection((LOOPBACK, front.port)) as plain:
        plain.sendall(get(ENSEMBLE))
        plain.settimeout(5)
        left = b""
        try:
            while piece := plain.recv(4096):
                left += piece
        except ConnectionResetError:
            pass
    assert b"HTTP/1.1" not in left


def test_a_request_that_comes_with_the_handshake_is_answered(
    front: Running, authority: Authority
) -> None:
    """Its bytes arrive in the packet that ends the handshake, before the protocol is there."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = trusting(authority).wrap_bio(theirs, ours, server_hostname=LOOPBACK)
    with socket.create_connection((LOOPBACK, front.port)) as plain:
        plain.settimeout(5)
        while True:
            try:
                wrapped.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(ours.read())
                theirs.write(plain.recv(65536))
        wrapped.write(get(ENSEMBLE, "Connection: close"))
        plain.sendall(ours.read())  # the last of the handshake, and the request
        answer = b""
        while b"\r\n\r\n" not in answer:
            theirs.write(plain.recv(65536))
            try:
                answer += wrapped.read(65536)
            except ssl.SSLWantReadError:
                continue
    assert answer.startswith(b"HTTP/1.1 200")


def test_an_answer_before_the_end_of_a_body_is_read(front: Running, authority: Authority) -> None:
    with httpx.Client(verify=trusting(authority)) as client:
        answer = client.post(
            f"https://{LOOPBACK}:{front.port}{ENSEMBLE}/generate", content=b" " * (8 << 20)
        )
    assert answer.status_code == 413


def test_who_never_shakes_hands_is_closed_and_counted(front: Running, authority: Authority) -> None:
    silent = [socket.create_connection((LOOPBACK, front.port)) for _ in range(30)]
    try:
        time.sleep(0.2)
        with pytest.raises(httpx.TransportError):  # 20 an address
            asked(front, trusting(authority))
        for each in silent:
            each.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(1) == b""
        wait_for(lambda: asked(front, trusting(authority)) == 200)
    finally:
        for each in silent:
            each.close()


class Quiet(asyncio.Protocol):
    """A connection that says nothing."""

    leave_handshake: Callable[[], None]


def test_a_burst_beyond_the_limit_is_closed_before_it_shakes_hands(signed: Signed) -> None:
    """asyncio's own loop takes what waits without a turn of others between."""

    async def main() -> tuple[int, int]:
        limits = Limits(connections=4)
        state = GatewayServerState(limits, 4)
        certificates = Certificates(
            AccessSettings(tls_cert=str(signed.cert), tls_key=str(signed.key))
        )
        clients: list[socket.socket] = []
        with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
            for _ in range(400):
                clients.append(socket.create_connection(listener.getsockname()))
            door = TlsDoor(listener, certificates, state, lambda: cast(TlsProtocol, Quiet()))
            while listener_has_clients(listener):
                await asyncio.sleep(0)
            most = len(state.connections)
            door.close()
            for client in clients:
                client.close()
        return most, len(clients)

    most, asked = asyncio.run(main())
    assert 0 < most <= REFUSED_AT_ONCE + 5 < asked


def listener_has_clients(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def test_certificates_are_read_anew_on_sighup_and_bad_ones_change_nothing(
    triton: FakeTriton, authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(one: Signed) -> None:
        cert.write_bytes(one.cert.read_bytes())
        key.write_bytes(one.key.read_bytes())

    put(signed)
    access = AccessSettings(tls_cert=str(cert), tls_key=str(key))
    with gateway(triton.port, os.getpid(), access=access) as front:
        context = trusting(authority)
        with httpx.Client(verify=context) as kept:
            url = f"https://{LOOPBACK}:{front.port}{ENSEMBLE}"
            assert kept.get(url).status_code == 200
            put(authority.sign("second", LOOPBACK))
            front.process.send_signal(signal.SIGHUP)
            wait_for(lambda: subject(front, context) == "second")
            assert kept.get(url).status_code == 200  # by the old connection
        key.write_bytes(signed.key.read_bytes())  # of another certificate
        front.process.send_signal(signal.SIGHUP)
        assert front.process.stderr is not None
        assert b"certificates: read again" in front.process.stderr.readline()
        said = front.process.stderr.readline().decode()
        assert f"{cert} and {key}: no certificate and its key" in said
        assert subject(front, context) == "second"


def test_clients_need_a_certificate_of_the_authority_where_one_is_named(
    triton: FakeTriton, authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    clients, others = Authority(tmp_path / "clients"), Authority(tmp_path / "others", "others")
    access = AccessSettings(
        tls_cert=str(signed.cert), tls_key=str(signed.key), tls_client_ca=str(clients.cert)
    )
    with gateway(triton.port, os.getpid(), access=access) as front:
        assert asked(front, trusting(authority, clients.sign("client"))) == 200
        assert asked(front, trusting(authority)) == 403
        assert asked(front, trusting(authority), "/") == 403
        assert asked(front, trusting(authority), HEALTH) != 403  # supervisors have none
        with pytest.raises(httpx.TransportError):
            asked(front, trusting(authority, others.sign("other")), HEALTH)


def test_what_cannot_be_used_is_said_by_name(
    authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    other = authority.sign("other", LOOPBACK)
    (tmp_path / "empty").write_text("")
    cert, key, empty = str(signed.cert), str(signed.key), str(tmp_path / "empty")
    wrong = [
        (AccessSettings(tls_cert="/none.pem", tls_key=key), "/none.pem: there is no such file"),
        (AccessSettings(tls_cert=cert, tls_key=str(other.key)), "no certificate and its key"),
        (AccessSettings(tls_cert=cert, tls_key=key, tls_client_ca=empty), f"{empty}: no cert"),
    ]
    for access, said in wrong:
        with pytest.raises(TlsFileError, match=said):
            make_context(access)
    with pytest.raises(TrellisError, match="only beside --tls-cert"):
        check_access(AccessSettings(tls_key=key))
