"""Who waits before OpenVINO's pipeline, and until when."""

import numpy as np

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.openvino_queue import OpenVinoQueue, Waiting, cache_blocks


def waiting(key: int, tokens: int = 32, name: str = "") -> Waiting:
    return Waiting(key, np.zeros(tokens - 1, np.int64), Sampling(max_tokens=1, lora_name=name))


def taken(queue: OpenVinoQueue, applied: str = "", idle: bool = False) -> list[int]:
    """The keys of all who may start now."""
    keys = []
    while (item := queue.take(applied, idle)) is not None:
        keys.append(item.key)
        idle = False
    return keys


def test_those_of_the_applied_adapter_start_until_one_of_another_comes() -> None:
    queue = OpenVinoQueue(None)
    for key, name in enumerate(["a", "a", "b", "a"]):
        queue.put(waiting(key, name=name))
    assert taken(queue, "a") == [0, 1]
    assert taken(queue, "a") == []  # the last is behind one of another
    assert taken(queue, "b", idle=True) == [2]
    assert taken(queue, "b") == []
    assert taken(queue, "a", idle=True) == [3]
    assert not queue


def test_those_start_that_fit_beside_what_runs() -> None:
    queue = OpenVinoQueue(128)
    for key, tokens in enumerate([64, 33, 32]):
        queue.put(waiting(key, tokens))
    assert taken(queue) == [0, 1]
    queue.forget(1)
    assert taken(queue) == []  # its blocks are free with the next step
    queue.stepped()
    assert taken(queue) == [2]


def test_one_that_never_fits_holds_up_nobody() -> None:
    queue = OpenVinoQueue(64)
    for key, tokens in ((0, 32), (1, 65), (2, 32)):
        queue.put(waiting(key, tokens))
    assert taken(queue, idle=True) == [0, 1, 2]
    item = waiting(1, 65)
    assert queue.too_long(item)
    assert not queue.too_long(waiting(2, 64))
    assert not OpenVinoQueue(None).too_long(item)


def test_who_waits_can_leave() -> None:
    queue = OpenVinoQueue(None)
    for key in range(3):
        queue.put(waiting(key))
    queue.forget(1)
    assert taken(queue) == [0, 2]
    queue.put(waiting(3))
    queue.clear()
    assert not queue


def test_tokens_are_counted_in_blocks() -> None:
    assert [cache_blocks(tokens) for tokens in (0, 1, 32, 33)] == [0, 1, 1, 2]
