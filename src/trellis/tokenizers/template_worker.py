# SPDX-License-Identifier: Apache-2.0
"""A process that renders chat templates, so that no template can hold up or fill its server.

It is started by `template_process` and never imported. Standard input is one end of a socket;
each message on it, both ways, is 8 bytes of length and as many of JSON:

    <- {"ready": true}                        once, after jinja2 was imported
    -> {"source": "{{ messages[0].content }}", "variables": {...},
        "seconds": 2.0, "memory": 268435456, "characters": 16777216}
    <- {"text": "Hello", "last": false}       or {"error": "division by zero", "last": false}

"last": the process has grown and ends after this answer; the next request needs a new one.

The process ends with its socket, which is when its parent ends. A render cannot outlive its
parent either: a timer ends the process one second after the render's time is up.
"""

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from datetime import datetime
from typing import Any, NoReturn

sys.path += sys.argv[1:]  # where the parent found jinja2, and what it needs

import jinja2
import jinja2.debug  # what jinja2 imports when a template fails
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

LENGTH = struct.Struct(">Q")
KEPT_TEMPLATES = 8
ERROR_CHARACTERS = 1_000
GRACE_SECONDS = 1.0
PAGE = resource.getpagesize()


class Generation(Extension):
    """{% generation %}...{% endgeneration %}: marks an answer for training; is its body here."""

    tags = frozenset(("generation",))  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        """A call block, as in transformers: what is set inside is not seen outside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return caller()


class PlainNamespace(Namespace):
    """jinja2's `namespace`, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be a name of the template's
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class PlainDict:
    """The function `dict`, without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """See dict.fromkeys."""
        return dict.fromkeys(*args)


def main() -> None:
    """Answer requests until the socket ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent's may block the timer's
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    environment = make_environment()
    environment.from_string("{% if true %}{{ 1 | tojson }}{% endif %}").render()
    templates: dict[str, jinja2.Template] = {}
    at_start = address_space()
    send({"ready": True})
    while (body := receive()) is not None:
        request = json.loads(body)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + GRACE_SECONDS)
        answer = render(environment, templates, request)
        answer["last"] = address_space() > at_start + request["memory"]
        send(answer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if answer["last"]:
            return


def render(
    environment: ImmutableSandboxedEnvironment,
    templates: dict[str, jinja2.Template],
    request: dict[str, Any],
) -> dict[str, Any]:
    """The text of a template, or what went wrong, within the request's limits of size."""
    try:
        with memory_limit(request["memory"]):
            try:
                template = compiled(environment, templates, request["source"])
                return {"text": text_of(template, request["variables"], request["characters"])}
            except MemoryError:
                raise
            except RecursionError:
                return {"error": "its recursion is too deep"}
            except Exception as error:  # a template may raise anything
                return {"error": complaint(error)}
    except MemoryError:
        return {"error": f"needs more than {request['memory'] >> 20} MiB"}


def compiled(
    environment: ImmutableSandboxedEnvironment,
    templates: dict[str, jinja2.Template],
    source: str,
) -> jinja2.Template:
    """The template; the last few stay compiled."""
    template = templates.pop(source, None) or environment.from_string(source)
    templates[source] = template
    if len(templates) > KEPT_TEMPLATES:
        del templates[next(iter(templates))]
    return template


def text_of(template: jinja2.Template, variables: dict[str, Any], characters: int) -> str:
    """The template's text. Raises ValueError as soon as it is longer than allowed."""
    pieces = []
    length = 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > characters:
            raise ValueError(f"its text is longer than {characters} characters")
        pieces.append(piece)
    return "".join(pieces)


def complaint(error: Exception) -> str:
    """What an error says, cut to a length that fits a log."""
    text = str(error)
    bare = isinstance(error, LookupError) and not isinstance(error, jinja2.TemplateError)
    if bare or not text:  # a KeyError says the key and nothing else
        text = f"{type(error).__name__}: {text}"
    return text[:ERROR_CHARACTERS]


@contextlib.contextmanager
def memory_limit(size: int) -> Any:
    """Lets the process grow by so many bytes; beyond that, MemoryError."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


def address_space() -> int:
    """The bytes of this process's address space."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * PAGE


def make_environment() -> ImmutableSandboxedEnvironment:
    """jinja2 as transformers sets it up, so that templates written for it give the same text."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.globals["dict"] = PlainDict()
    environment.globals["namespace"] = PlainNamespace
    return environment


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' filter `tojson`: jinja2's own escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def raise_exception(message: str) -> NoReturn:
    """A template's own way to refuse messages."""
    raise jinja2.TemplateError(message)


def strftime_now(format: str) -> str:
    """The local time now, in the form of time.strftime."""
    return datetime.now().strftime(format)


def _check_name(name: str) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"access to the name {name!r} of a namespace is unsafe")


def receive() -> bytes | None:
    """The next message, or None where the socket has ended."""
    head = read(LENGTH.size)
    return None if head is None else read(LENGTH.unpack(head)[0])


def read(size: int) -> bytes | None:
    """So many bytes of standard input, or None where it ends sooner."""
    data = bytearray()
    while len(data) < size:
        piece = os.read(0, min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def send(message: dict[str, Any]) -> None:
    """Send one message on the socket that is standard input."""
    body = json.dumps(message).encode()
    data = memoryview(LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(0, data) :]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main()
