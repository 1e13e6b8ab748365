"""What the process of chat templates does with one request, here in the process of the tests."""

import importlib
import json
import os
import socket
import sys
from types import ModuleType
from typing import Any

import pytest

MEMORY = 64 << 20


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    """The module, which takes the folders of its packages from the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["template_worker"])
        return importlib.import_module("trellis.tokenizers.template_worker")


@pytest.fixture
def limits(worker: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on memory is the process's; the other tests share this one."""
    monkeypatch.setattr(worker.resource, "setrlimit", lambda *_: None)


def rendered(worker: ModuleType, source: str, characters: int = 1000, **variables: Any) -> Any:
    request = {
        "source": source,
        "variables": variables,
        "memory": MEMORY,
        "characters": characters,
    }
    answer = worker.render(worker.make_environment(), {}, request)
    return answer.get("text", answer)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ x }}", "é<"),
        ("{{ x | tojson }}", '"é<"'),
        ("{{ {'b': 1, 'a': x} | tojson(sort_keys=true, indent=1) }}", '{\n "a": "é<",\n "b": 1\n}'),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}", "1é<"),
        ("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "2"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys('ab', 1) | length }}", "12"),
        ("{{ strftime_now('%%') }}", "%"),
    ],
)
def test_a_template_is_rendered_as_transformers_renders_it(
    worker: ModuleType, limits: None, source: str, expected: str
) -> None:
    assert rendered(worker, source, x="é<") == expected


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{{ raise_exception('no tools') }}", "no tools"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ {}['x'].y }}", "'dict object' has no attribute 'x'"),
        ("{{ [].pop() }}", "access to attribute 'pop' of 'list' object is unsafe."),
        ("{{ ''.__class__.mro() }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{% set ns = namespace(_a=1) %}", "access to the name '_a' of a namespace is unsafe"),
        ("{% set ns = namespace() %}{% set ns._a = 1 %}", "access to the name '_a' of a namespace"),
        ("{{ 'a' * 1001 }}", "its text is longer than 1000 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "its recursion is too deep"),
        ("{% if %}", "Expected an expression, got 'end of statement block'"),
    ],
)
def test_what_goes_wrong_is_the_answer(
    worker: ModuleType, limits: None, source: str, error: str
) -> None:
    assert rendered(worker, source)["error"].startswith(error)


def test_a_complaint_is_short_and_never_empty(worker: ModuleType) -> None:
    assert worker.complaint(ValueError("x" * 5000)) == "x" * 1000
    assert worker.complaint(KeyError("a")) == "KeyError: 'a'"
    assert worker.complaint(ValueError()) == "ValueError: "


def test_more_memory_than_is_allowed_is_an_error(
    worker: ModuleType, limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(worker, "text_of", full)
    assert rendered(worker, "x") == {"error": "needs more than 64 MiB"}


def test_the_last_few_templates_stay_compiled(worker: ModuleType) -> None:
    environment = worker.make_environment()
    kept: dict[str, Any] = {}
    sources = [f"{{{{ {number} }}}}" for number in range(worker.KEPT_TEMPLATES)]
    first = [worker.compiled(environment, kept, source) for source in sources]
    assert worker.compiled(environment, kept, sources[0]) is first[0]
    worker.compiled(environment, kept, "one more")
    assert sources[1] not in kept  # the one not asked for the longest
    assert worker.compiled(environment, kept, sources[0]) is first[0]


def test_requests_are_answered_until_the_socket_ends(
    worker: ModuleType, limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real loop, on a socket as standard input; the timer would end this process."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker.signal, "setitimer", lambda *_: None)
    monkeypatch.setattr(worker.signal, "pthread_sigmask", lambda *_: None)
    read, write = os.read, os.write
    end = theirs.fileno()
    monkeypatch.setattr(worker.os, "read", lambda fd, size: read(fd or end, size))
    monkeypatch.setattr(worker.os, "write", lambda fd, data: write(fd or end, data))
    request = {
        "source": "{{ x }}",
        "variables": {"x": "é"},
        "seconds": 2.0,
        "memory": 1 << 40,
        "characters": 10,
    }
    with ours, theirs:
        body = json.dumps(request).encode()
        ours.sendall(worker.LENGTH.pack(len(body)) + body)
        ours.sendall(b"\0" * 3)  # half a message
        ours.shutdown(socket.SHUT_WR)
        worker.main()
        theirs.shutdown(socket.SHUT_WR)
        got = b"".join(iter(lambda: ours.recv(4096), b""))
    messages = []
    while got:
        (length,) = worker.LENGTH.unpack(got[: worker.LENGTH.size])
        messages.append(json.loads(got[worker.LENGTH.size :][:length]))
        got = got[worker.LENGTH.size + length :]
    assert messages == [{"ready": True}, {"text": "é", "last": False}]
