"""Which heads are let in: one reading, HTTP/1.1 alone, no larger than a request needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.gateway.heads import check_head, plain_path
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal

HOST = [(b"host", b"x")]
LIMITS = Limits()


def refused(
    *headers: tuple[bytes, bytes],
    method: bytes = b"POST",
    version: str = "1.1",
    target: bytes = b"/v2",
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_head(method, version, target, list(headers), LIMITS)
    assert caught.value.close
    return caught.value


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/v2/models/m/infer", b"/v2/models/m/infer"),
        (b"/v2?a=%2f//#x", b"/v2"),
        (b"http://host:1/v2/models/m/infer?x", b"/v2/models/m/infer"),
        (b"HTTPS://host/v2", b"/v2"),
        (b"hTTp://x/v2/models/ensemble/generate", b"/v2/models/ensemble/generate"),
    ],
)
def test_a_target_is_known_by_its_path(target: bytes, path: bytes) -> None:
    assert plain_path(target) == path


@pytest.mark.parametrize(
    "target",
    [
        b"", b"*", b"v2", b"?x", b"host:80", b"http://host", b"http://host?/v2", b"ftp://host/v2",
        b"//v2/models/m/infer", b"/v2//models/m/infer", b"/v2/models/m//infer", b"/v2/",
        b"/v2/models/%6d/infer", b"/v2/models/m/%69nfer", b"/v2/models/m/infer%00",
        b"/v2/models/x/../m/infer", b"/v2/models/./m/infer", b"/v2/models/m/infer/..", b"/..",
        b"/v2/models\\m/infer", b"/v2/models/m/infer#x", b"/v2/models/m/infer\t",
        b"http://host//v2", b"http://a@b/v2/%2e", b"/v2/models/\xc3\xa9", b"/v2\n",
        b"/v2/models/m\x00",
    ],
)  # fmt: skip
def test_a_target_with_two_readings_is_refused(target: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        plain_path(target)
    assert (caught.value.status, caught.value.close) == (400, True)


@given(st.binary(max_size=60))
def test_a_path_that_is_let_in_is_plain(target: bytes) -> None:
    try:
        path = plain_path(target)
    except Refusal:
        return
    assert path.startswith(b"/")
    assert path.isascii()
    assert not set(path) & set(b"%?# \\")
    assert b".." not in path.split(b"/")


UPGRADES = [
    [(b"upgrade", b"h2c")],
    [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")],
    [(b"connection", b"upgrade")],
    [(b"connection", b"keep-alive,UPGRADE")],
    [(b"connection", b"close"), (b"connection", b" upgrade ")],
    [(b"http2-settings", b"AAMAAABkAAQCAAAAAAIAAAAA")],
    [(b"connection", b"HTTP2-Settings")],
]


@pytest.mark.parametrize("headers", UPGRADES, ids=str)
def test_an_upgrade_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    refusal = refused(*HOST, *headers)
    assert (refusal.status, refusal.message.partition(":")[0]) == (400, "Upgrade")


def test_a_connection_that_is_kept_or_closed_is_no_upgrade() -> None:
    headers = [*HOST, (b"connection", b"keep-alive, close"), (b"x-upgrade", b"h2c")]
    assert check_head(b"GET", "1.1", b"/v2?x", headers, LIMITS) == b"/v2"


@pytest.mark.parametrize(
    "hosts", [[], [b"a", b"b"], [b"a", b"a"], [b"a/b"], [b"a b"], [b"a@b"], [b"\xff"], [b"a,\t"]]
)
def test_host_is_there_once_and_a_host(hosts: list[bytes]) -> None:
    refusal = refused(*((b"host", host) for host in hosts))
    assert (refusal.status, refusal.message.partition(":")[0]) == (400, "Host")


@pytest.mark.parametrize("host", [b"", b"x", b"127.0.0.1:8000", b"[::1]:8000", b"a-b.example"])
def test_a_host_of_any_usual_form_is_let_in(host: bytes) -> None:
    assert check_head(b"GET", "1.1", b"/v2", [(b"host", host)], LIMITS) == b"/v2"


def test_http_1_0_needs_no_host() -> None:
    assert check_head(b"GET", "1.0", b"/v2", [], LIMITS) == b"/v2"


FRAMING: list[list[tuple[bytes, bytes]]] = [
    [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")],
    [(b"content-length", b"4"), (b"content-length", b"4")],
    [(b"content-length", b"+4")],
    [(b"content-length", b"4, 4")],
    [(b"content-length", b"")],
    [(b"transfer-encoding", b"gzip, chunked")],
    [(b"transfer-encoding", b"xchunked")],
    [(b"transfer-encoding", b"identity")],
    [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
]


@pytest.mark.parametrize("headers", FRAMING, ids=str)
def test_a_body_has_one_length(headers: list[tuple[bytes, bytes]]) -> None:
    assert refused(*HOST, *headers).status == 400


def test_http_1_0_has_no_chunks() -> None:
    assert refused(*HOST, (b"transfer-encoding", b"chunked"), version="1.0").status == 400


@pytest.mark.parametrize(
    ("method", "version", "status"),
    [
        (b"HEAD", "1.1", 405),
        (b"PUT", "1.1", 405),
        (b"CONNECT", "1.1", 405),
        (b"TRACE", "1.1", 405),
        (b"GET", "0.9", 505),
        (b"GET", "2.0", 505),
    ],
)
def test_methods_and_versions_that_are_not_known_are_refused(
    method: bytes, version: str, status: int
) -> None:
    assert refused(*HOST, method=method, version=version).status == status


def test_a_head_may_be_so_large_and_no_larger() -> None:
    limits = Limits(head_bytes=100, headers=3)
    for headers in (
        [(b"host", b"x" * 97)],
        [*HOST, *[(b"a", b"b")] * 3],
        [(b"host", b"x"), (b"a", b"b" * 92)],
    ):
        with pytest.raises(Refusal) as caught:
            check_head(b"GET", "1.1", b"/v2", headers, limits)
        assert caught.value.status == 431
    assert check_head(b"GET", "1.1", b"/v2", [(b"host", b"x" * 93)], limits) == b"/v2"


def test_a_path_is_no_longer_than_any_model_needs() -> None:
    assert refused(*HOST, target=b"/x" * 513).status == 414
    check_head(b"POST", "1.1", b"/x" * 512 + b"?" + b"y" * 5000, HOST, LIMITS)


def test_a_name_in_a_path_is_no_longer_than_an_error_may_repeat() -> None:
    """Triton repeats names whole; a version of 5,000 digits was an error of the gateway's own."""
    for name in (b"x" * 65, b"9" * 1000):
        refusal = refused(*HOST, target=b"/v2/models/" + name + b"/ready")
        assert refusal.status == 404
        assert len(refusal.message) < 64 + 50
    check_head(b"GET", "1.1", b"/v2/models/" + b"x" * 64 + b"/ready", HOST, LIMITS)


def test_an_expectation_of_another_kind_is_refused() -> None:
    assert refused(*HOST, (b"expect", b"200-ok")).status == 417
    check_head(b"POST", "1.1", b"/v2", [*HOST, (b"expect", b"100-Continue")], LIMITS)
