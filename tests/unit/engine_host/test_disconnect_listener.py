"""The engine host's ear for clients that left, where another has its address at first."""

import os
import socket
import threading

from trellis.engine_host.disconnect_listener import DisconnectListener
from trellis.ipc.sockets import datagram_socket, model_address


def test_a_model_that_replaces_another_listens_once_that_is_unloaded() -> None:
    address = model_address("gone", "tensorrt_llm", os.getppid())
    heard = threading.Event()
    told: list[frozenset[str]] = []

    def cancel(tokens: frozenset[str]) -> None:
        told.append(tokens)
        heard.set()

    with datagram_socket() as replaced, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as front:
        replaced.bind(address)
        gone = DisconnectListener("tensorrt_llm", cancel)
        try:
            front.sendto(b"gone before", address)
            replaced.close()
            for _ in range(20):
                try:
                    front.sendto(b"gone after", address)
                except ConnectionRefusedError:
                    heard.wait(0.1)
            assert heard.wait(5)
            assert set().union(*told) == {"after"}
            assert "after" in gone
            assert "before" not in gone
        finally:
            gone.close()
