"""What the gateway lets in: targets with one reading, HTTP/1.1 alone, bodies of a type of ours."""

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_wire import ENSEMBLE, Wire, get, post
from trellis.gateway.doors import asked_path, check_inner, check_upgrade, origin_form, with_own_type
from trellis.gateway.models import Model, read_model
from trellis.gateway.replies import JSON, Refusal
from trellis.server.ports import free_ports
from unit.gateway.test_disconnects import front


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (b"/v2/models/m/infer", b"/v2/models/m/infer"),
        (b"/v2?a=%2f//#x", b"/v2?a=%2f//#x"),
        (b"http://host:1/v2/models/m/infer?x", b"/v2/models/m/infer?x"),
        (b"HTTPS://host/v2", b"/v2"),
    ],
)
def test_a_target_is_passed_on_in_origin_form(target: bytes, origin: bytes) -> None:
    assert origin_form(target) == origin


@pytest.mark.parametrize(
    "target",
    [
        b"", b"*", b"v2", b"?x", b"host:80", b"http://host", b"http://host?/v2", b"ftp://host/v2",
        b"//v2/models/m/infer", b"/v2//models/m/infer", b"/v2/models/m//infer",
        b"/v2/models/%6d/infer", b"/v2/models/m/%69nfer", b"/v2/models/m/infer%00",
        b"/v2/models/x/../m/infer", b"/v2/models/./m/infer", b"/v2/models/m/infer/..",
        b"/v2/models\\m/infer", b"/v2/models/m/infer#x", b"/v2/models/m/infer\t",
        b"http://host//v2", b"http://a@b/v2/%2e",
    ],
)  # fmt: skip
def test_a_target_with_two_readings_is_refused(target: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        origin_form(target)
    assert (caught.value.status, caught.value.close) == (400, True)


@pytest.mark.parametrize("verb", ["infer", "generate", "generate_stream"])
def test_who_asks_a_model_is_known_by_the_path(verb: str) -> None:
    for model in ("/v2/models/m", "/v2/models/m.1/versions/12", "/v2/models/infer"):
        assert asked_path(f"{model}/{verb}?x=/".encode()) == model
        assert asked_path(model.encode()) == ""
        assert asked_path(f"{model}/config".encode()) == ""


@pytest.mark.parametrize(
    "target",
    [
        b"/V2/Models/m/infer", b"/v2/models/m/INFER", b"/v2/models/m/infer/",
        b"/v2/models/m/infer;x", b"/v2/models/m/versions/x/infer",
        b"/v2/models/m/versions/1/x/generate", b"/v2/models/m/generate_streams",
        b"/v2/models/m/x/infer",
    ],
)  # fmt: skip
def test_what_nearly_asks_a_model_is_no_path(target: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        asked_path(target)
    assert caught.value.status == 404


UPGRADES = [
    ["Upgrade: h2c"],
    ["Upgrade: websocket", "Connection: Upgrade"],
    ["Connection: upgrade"],
    ["connection: keep-alive,UPGRADE"],
    ["HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
    ["Connection: HTTP2-Settings"],
    ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"],
]


def test_a_connection_that_is_kept_or_closed_is_no_upgrade() -> None:
    check_upgrade([(b"Connection", b"keep-alive, close"), (b"X-Upgrade", b"h2c")])


@pytest.mark.slow
@pytest.mark.parametrize("headers", UPGRADES, ids=str)
@pytest.mark.parametrize("body", [b"", b'{"text_input": "x"}'])
def test_an_upgrade_is_refused_and_ends_its_connection(headers: list[str], body: bytes) -> None:
    """Before nginx the rest of such a connection would be another client's."""
    requests = [post(body, *headers, target=path) for path in ("/v2", f"{ENSEMBLE}/infer")]
    requests += [get("/v2", *headers)] if not body else [post(body, *headers)]
    with FakeTriton() as triton, front(triton, 1) as (port, _):
        for request in requests:
            with Wire(port) as wire:
                wire.send(request + post({"text_input": "x"}))
                answer = wire.answer()
                assert (answer.status, answer.headers["connection"]) == (400, "close")
                assert answer.error.startswith("Upgrade: only HTTP/1.1 is spoken here")
                assert wire.closed()
        assert triton.streams == []


FORM = (b"content-TYPE", b"application/x-www-form-urlencoded")
LENGTH = (b"Inference-Header-Content-Length", b"7")


@pytest.mark.parametrize(
    ("target", "sent", "wanted"),
    [
        (b"/v2/models/m/generate", [FORM], JSON),
        (b"/v2/models/m/infer?x", [FORM, (b"Content-Type", b"multipart/form-data")], JSON),
        (b"/v2/models/m/infer?x", [FORM, LENGTH], b"application/octet-stream"),
        (b"/v2/models/m/generate", [LENGTH], JSON),
        (b"/anything", [], JSON),
    ],
)
def test_the_type_of_a_body_is_ours(
    target: bytes, sent: list[tuple[bytes, bytes]], wanted: bytes
) -> None:
    made = with_own_type(target, [(b"Host", b"x"), *sent])
    assert [value for name, value in made if name.lower() == b"content-type"] == [wanted]
    assert (b"Host", b"x") in made
    assert (LENGTH in made) == (LENGTH in sent)


@pytest.mark.parametrize("config", [{"platform": ""}, {"backend": "python"}, {"platform": "x"}])
def test_a_model_is_inner_by_its_configuration_and_not_by_its_name(config: dict[str, str]) -> None:
    model = read_model({"name": "ensemble", **config}, lambda _: {})
    with pytest.raises(Refusal) as caught:
        check_inner(model)
    assert caught.value.status == 404
    assert "--expose-inner-models" in caught.value.message
    check_inner(read_model({"name": "preprocessing", "platform": "ensemble"}, lambda _: {}))


@pytest.mark.parametrize("verb", ["infer", "generate", "generate_stream"])
def test_nothing_of_a_request_that_is_not_let_in_comes_to_triton(verb: str) -> None:
    with FakeTriton() as triton, front(triton, 1) as (port, _):
        for name in ("tensorrt_llm", "nope"):
            target = f"/v2/models/{name}/{verb}"
            with Wire(port) as wire:
                for _ in range(2):  # asked for, and known
                    answer = wire.send(post({"text_input": "x"}, target=target)).answer()
                    assert (answer.status, "ask" in answer.error) == (404, True)
        assert triton.streams == []


def test_a_body_that_is_not_let_in_is_not_waited_for() -> None:
    head = b"POST /v2/models/tensorrt_llm/infer HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"
    with FakeTriton() as triton, front(triton, 1) as (port, _), Wire(port) as wire:
        assert wire.send(head + b"{").answer().status == 404
        assert wire.closed()


def test_nobody_is_let_in_while_the_models_cannot_be_known() -> None:
    (nobody,) = free_ports(1)

    class Absent:
        port = nobody

    with front(Absent(), 1) as (port, _):  # type: ignore[arg-type]
        for verb in ("infer", "generate"):
            with Wire(port) as wire:
                answer = wire.send(post({}, target=f"/v2/models/tensorrt_llm/{verb}")).answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_only_ensembles_are_known_as_such() -> None:
    assert not Model("mine").is_ensemble
