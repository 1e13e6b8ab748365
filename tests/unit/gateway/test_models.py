"""What is known of models, before a server whose answers wait for the test."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

from support.waiting import wait_for
from trellis.gateway.models import Models

PATH = "/v2/models/embedding"


class Server(ThreadingHTTPServer):
    """Shows a model with as many rows as it was asked before; each answer waits for its gate."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = 0
        self.gates = [threading.Event() for _ in range(4)]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast(Server, self.server)
        number, server.asked = server.asked, server.asked + 1
        server.gates[number].wait(10)
        body = json.dumps({"name": "embedding", "max_batch_size": number}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    for gate in made.gates:
        gate.set()
    made.shutdown()
    thread.join()
    made.server_close()


async def question(models: Models, server: Server, asked: int) -> asyncio.Task[int]:
    """One that is on its way; `asked`: how often the server was asked by then."""

    async def rows() -> int:
        return (await models.find(PATH)).batch

    made = asyncio.create_task(rows())
    await asyncio.sleep(0)
    await asyncio.to_thread(wait_for, lambda: server.asked == asked)
    return made


def test_who_asks_at_once_shares_one_question(server: Server) -> None:
    async def main() -> None:
        models = Models(server.server_port)
        both = [await question(models, server, 1) for _ in range(2)]
        server.gates[0].set()
        assert await asyncio.gather(*both) == [0, 0]
        assert await (await question(models, server, 1)) == 0, "it is known"

    asyncio.run(main())


@pytest.mark.parametrize("first", [0, 1])
def test_after_a_model_changed_nobody_gets_the_answer_to_a_question_from_before(
    server: Server, first: int
) -> None:
    """`first`: which of the two questions is answered first."""

    async def main() -> None:
        models = Models(server.server_port)
        before = await question(models, server, 1)
        models.forget()
        after = await question(models, server, 2)
        pair = (before, after)
        server.gates[first].set()
        assert await pair[first] == first
        joins = await question(models, server, 2)
        server.gates[1 - first].set()
        assert await pair[1 - first] == 1 - first
        assert await joins == 1
        known = models.known(PATH)
        assert known is not None
        assert known.batch == 1

    asyncio.run(main())
