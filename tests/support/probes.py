"""Windows into the processes of a repository's models, for tests that count what is left there.

A probed repository is an ordinary one, but that two of its models answer on a Unix socket (Linux's
abstract namespace: no file) with what they hold at that moment.
"""

import hashlib
import json
import socket
import time
from pathlib import Path

COUNTS = {
    "postprocessing": '{"streams": len(model.streams)}',
    "tensorrt_llm": (
        '{"answers": len(model.loop.answers()), "queued": model.senders._queue.qsize(),'
        ' "waiting": model.loop._inbox.qsize(), "in_engine": len(model.loop.engine._running)}'
    ),
}
PROBE = '''

import json as _json
import socket as _socket
import threading as _threading


class TritonPythonModel(TritonPythonModel):  # type: ignore[no-redef]
    """The model, with a window."""

    def initialize(self, args):
        super().initialize(args)
        window = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        window.bind({address!r})
        window.listen()
        _threading.Thread(target=_show, args=(window, self), daemon=True).start()


def _show(window, model):
    while True:
        client, _ = window.accept()
        with client:
            client.sendall(_json.dumps({counts}).encode())
'''


def add_probes(repo: Path) -> None:
    """Add a window to both stateful models of an assembled repository of the demo engine."""
    for model, counts in COUNTS.items():
        source = repo / model / "1" / "model.py"
        text = source.read_text() + PROBE.format(address=_address(repo, model), counts=counts)
        source.unlink()  # it may be a link to the source
        source.write_text(text)


def state(repo: Path) -> dict[str, int]:
    """What the models hold now: streams, requests, tasks."""
    found: dict[str, int] = {}
    for model in COUNTS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as window:
            window.settimeout(10)
            window.connect(_address(repo, model))
            found |= json.loads(window.makefile("rb").read())
    return found


def settled(repo: Path, seconds: float = 10) -> dict[str, int]:
    """What the models still hold when nothing should be left; waits for them to finish."""
    end = time.monotonic() + seconds
    while any((left := state(repo)).values()) and time.monotonic() < end:
        time.sleep(0.02)
    return {name: count for name, count in left.items() if count}


def _address(repo: Path, model: str) -> bytes:
    place = f"{repo.resolve()} {model}"
    return (
        b"\0trellis.probe." + hashlib.blake2b(place.encode(), digest_size=16).hexdigest().encode()
    )
