# SPDX-License-Identifier: Apache-2.0
"""nginx and HAProxy of Debian before the gateway, with connections kept and shared.

One client's bytes must never become another's request: whatever a request's end looks like to one
of the two servers, the answers that others get by the same upstream connections stay theirs.
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from trellis.server.ports import free_ports
from trellis.server.process import Server

NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/error.log; events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream localhost {{ server 127.0.0.1:{gateway}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://localhost; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 256
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port}
  default_backend gateway
backend gateway
  server only 127.0.0.1:{gateway} pool-max-conn 1
"""
STARTS = {
    "nginx": (NGINX, ["nginx", "-e", "{folder}/error.log", "-c", "{file}"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{file}"]),
}
GENERATE = "/v2/models/ensemble/generate"
# What an attacker would have another client be answered with.
HIDDEN = b"GET /v2/models/ensemble/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b'{"text_input": "a", "max_tokens": 1}'


def request(*headers: bytes, body: bytes = b"", line: bytes = b"POST %s HTTP/1.1") -> bytes:
    """One request as it is, framed by its own headers."""
    first = line % GENERATE.encode() if b"%s" in line else line
    return b"\r\n".join([first, b"Host: localhost", *headers, b"", body])


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


CHUNKED = b"Transfer-Encoding: chunked"
ATTACKS = {
    "upgrade with a body": request(
        b"Connection: Upgrade", b"Upgrade: websocket", sized(HIDDEN), body=HIDDEN
    ),
    "upgrade without a body": request(b"Connection: Upgrade", b"Upgrade: websocket", body=HIDDEN),
    "upgrade of a GET": request(
        b"Connection: Upgrade", b"Upgrade: websocket", sized(HIDDEN), body=HIDDEN,
        line=b"GET /v2/health/live HTTP/1.1",
    ),
    "upgrade to HTTP/2": request(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk",
        sized(HIDDEN), body=HIDDEN,
    ),
    "length and chunks": request(
        sized(BODY + HIDDEN), CHUNKED, body=in_chunks(BODY) + HIDDEN
    ),
    "chunks and length": request(CHUNKED, b"Content-Length: 4", body=in_chunks(BODY) + HIDDEN),
    "two lengths": request(sized(BODY), sized(BODY + HIDDEN), body=BODY + HIDDEN),
    "a length with a sign": request(b"Content-Length: +%d" % len(BODY), body=BODY + HIDDEN),
    "chunks by another name": request(
        b"Transfer-Encoding: xchunked", sized(BODY), body=in_chunks(BODY) + HIDDEN
    ),
    "chunks after a tab": request(b"Transfer-Encoding:\tchunked", body=in_chunks(BODY) + HIDDEN),
    "chunks twice": request(CHUNKED, b"Transfer-Encoding: identity", body=in_chunks(BODY) + HIDDEN),
    "a space before the colon": request(b"Content-Length : 4", body=HIDDEN),
    "a folded header": request(b"X: a\r\n Content-Length: 4", body=HIDDEN),
    "line feeds alone": request(sized(BODY), body=BODY).replace(b"\r\n", b"\n") + HIDDEN,
    "a chunk's extension": request(
        CHUNKED, body=b"%x;a=\"\r\n\"\r\n%b\r\n0\r\n\r\n%b" % (len(BODY), BODY, HIDDEN)
    ),
    "a chunk size with a prefix": request(
        CHUNKED, body=b"0x%x\r\n%b\r\n0\r\n\r\n%b" % (len(BODY), BODY, HIDDEN)
    ),
    "trailers": request(
        CHUNKED, body=b"%x\r\n%b\r\n0\r\nContent-Length: 9\r\n\r\n%b" % (len(BODY), BODY, HIDDEN)
    ),
    "an absolute target": request(
        sized(BODY), body=BODY + HIDDEN,
        line=b"POST HTTP://other/v2/models/ensemble/generate HTTP/1.1",
    ),
    "a body of a HEAD": request(sized(HIDDEN), body=HIDDEN, line=b"HEAD /v2/health/live HTTP/1.1"),
    "a GET with a body": request(sized(HIDDEN), body=HIDDEN, line=b"GET /v2/health/live HTTP/1.1"),
    "a body cut off": request(b"Content-Length: 400", body=BODY),
    "a request behind it": request(sized(BODY), body=BODY) + HIDDEN,
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(STARTS))
def proxy(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port of a proxy with one connection to the gateway, which all its clients share."""
    name: str = request.param
    text, command = STARTS[name]
    program = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        pytest.skip(f"needs {name}: sudo apt-get install -y nginx-light haproxy")
    folder, (port,) = tmp_path_factory.mktemp(name), free_ports(1)
    values = {"folder": folder, "port": port, "gateway": server.settings.http_port}
    file = folder / "proxy.conf"
    file.write_text(text.format(**values))
    arguments = [part.format(folder=folder, file=file) for part in command[1:]]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
        try:
            _wait_for(port, process, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def ask(port: int, number: int) -> None:
    """A client that must get its own answer, by its id."""
    body = {"id": f"victim-{number}", "text_input": "The capital of France is", "max_tokens": 4}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        answer = client.post(GENERATE, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == f"victim-{number}"
    assert answer.json()["text_output"].startswith(" Paris")


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_client_gets_what_another_one_smuggled(proxy: int, attack: str) -> None:
    ask(proxy, 0)  # the connection to the gateway is there, and kept
    for number in range(1, 4):
        with socket.create_connection(("127.0.0.1", proxy), 10) as attacker:
            attacker.sendall(ATTACKS[attack])
            attacker.settimeout(0.3)
            with contextlib.suppress(OSError):
                while attacker.recv(65536):
                    pass
            ask(proxy, number)
        ask(proxy, 10 + number)


def test_streams_come_through_as_they_are_made(proxy: int) -> None:
    body = {"text_input": "Once", "max_tokens": 8, "stream": True}
    url = f"http://127.0.0.1:{proxy}{GENERATE}_stream"
    with httpx.stream("POST", url, json=body, trust_env=False, timeout=30) as answer:
        events = [line for line in answer.iter_lines() if line]
    assert len(events) >= 2
    assert all(event.startswith("data: ") for event in events)
