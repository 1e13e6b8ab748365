"""By which names the gateway is asked, by pages of which sites, and the ids of requests."""

import json
import os
from collections.abc import Iterator, Sequence

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import Running, gateway
from support.gateway_wire import ENSEMBLE, Answer, Wire
from trellis.errors import TrellisError
from trellis.gateway.access.check import check_access
from trellis.server.access_settings import AccessSettings

APP = "https://app.example"


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as running:
        yield running


@pytest.fixture(scope="module")
def front(triton: FakeTriton) -> Iterator[Running]:
    with gateway(triton.port, os.getpid()) as running:
        yield running


@pytest.fixture(scope="module")
def open_front(triton: FakeTriton) -> Iterator[Running]:
    """One that other names and pages may ask."""
    access = AccessSettings(
        cors_origins=(APP,), allowed_hosts=("llm.example.com", "*.internal.example")
    )
    with gateway(triton.port, os.getpid(), access=access) as running:
        yield running


def ask(
    front: Running,
    *headers: str,
    host: str = "localhost",
    path: str = ENSEMBLE,
    method: str = "GET",
) -> Answer:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
    with Wire(front.port) as wire:
        return wire.send("\r\n".join(lines).encode()).answer()


LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.1.2.3:9", "[::1]:8000", "a.localhost"]
FOREIGN = ["evil.example", "localhost.evil.example", "192.168.0.1:8000", "[::2]", "0.0.0.0", "x"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_asked_by_its_own_names(front: Running, open_front: Running, host: str) -> None:
    assert ask(front, host=host).status == 200
    assert ask(open_front, host=host).status == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_loopback_is_not_asked_by_other_names(
    front: Running, open_front: Running, host: str
) -> None:
    for one in (front, open_front):
        answer = ask(one, host=host)
        assert answer.status == 421
        assert json.loads(answer.body)["error"].startswith(f"Host: {host}: not a name of this")


def test_an_allowed_name_is_let_in(open_front: Running) -> None:
    for host in ("llm.example.com", "LLM.example.com.:443", "a.internal.example"):
        assert ask(open_front, host=host).status == 200
    for host in ("example.com", "internal.example", "llm.example.com.evil"):
        assert ask(open_front, host=host).status == 421


def test_who_listens_for_others_is_asked_by_any_name(triton: FakeTriton) -> None:
    with gateway(triton.port, os.getpid(), address="0.0.0.0") as front:
        assert ask(front, host="anything.example").status == 200


def test_supervisors_ask_for_health_by_any_name(front: Running) -> None:
    assert ask(front, host="10.0.0.7:8000", path="/v2/health/live").status != 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((f"Origin: {APP}",), 403),
        (("Origin: null",), 403),
        (("Origin: http://localhost.evil.example",), 403),
        ((f"Origin: {APP}", "Sec-Fetch-Site: cross-site"), 403),
        ((f"Origin: {APP}", "Sec-Fetch-Site: same-site"), 403),
        (("Origin: http://localhost",), 200),
        ((f"Origin: {APP}", "Sec-Fetch-Site: same-origin"), 200),  # behind a proxy
    ],
)
def test_pages_of_other_sites_do_not_ask(
    front: Running, headers: Sequence[str], status: int
) -> None:
    assert ask(front, *headers).status == status


def test_pages_of_a_named_site_ask_and_read_the_answer(open_front: Running) -> None:
    wanted = "Access-Control-Request-Headers: authorization,content-type,x-stainless-os"
    preflight = ask(
        open_front,
        f"Origin: {APP}",
        "Access-Control-Request-Method: POST",
        wanted,
        method="OPTIONS",
        path="/v1/chat/completions",
    )
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == APP
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    for path, status in ((ENSEMBLE, 200), ("/nothing", 404)):
        answer = ask(open_front, f"Origin: {APP}", path=path)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, APP)
    other = ask(open_front, "Origin: https://other.example")
    assert other.status == 403
    assert "access-control-allow-origin" not in other.headers


def test_without_the_option_nothing_is_said_of_origins(front: Running) -> None:
    answer = ask(front, "Origin: http://localhost")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_id_is_returned_or_made(front: Running) -> None:
    assert ask(front, "X-Request-Id: a-1.b_2").headers["x-request-id"] == "a-1.b_2"
    made = {ask(front).headers["x-request-id"] for _ in range(3)}
    assert {len(each) for each in made} == {32}
    assert len(made) == 3
    assert ask(front, "X-Request-Id: 7", path="/nothing").headers["x-request-id"] == "7"


@pytest.mark.parametrize("sent", ["a b", "x" * 129, "é", 'a"b', "a%0d%0ab", "{}"])
def test_an_id_that_would_break_a_log_is_refused(front: Running, sent: str) -> None:
    for path in (ENSEMBLE, "/v1/models"):
        answer = ask(front, f"X-Request-Id: {sent}", path=path)
        assert answer.status == 400
        error = json.loads(answer.body)["error"]
        assert "X-Request-Id: send 1 to 128" in (
            error["message"] if path.startswith("/v1") else error
        )
        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (AccessSettings(cors_origins=("app.example",)), "no origin; write https://"),
        (AccessSettings(cors_origins=("https://app.example/",)), "without a path"),
        (AccessSettings(allowed_hosts=("a:80",)), "without a port"),
        (AccessSettings(allowed_hosts=("https://a",)), "no name"),
    ],
)
def test_the_launcher_says_what_is_no_name(access: AccessSettings, said: str) -> None:
    with pytest.raises(TrellisError, match=said):
        check_access(access)
