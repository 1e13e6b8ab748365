"""How postprocessing learns that an id is used again: through a datagram, or not at all."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trellis.ipc.stream_announcements import Announcer, CountedPrompt, Listener, Notice, id_digest


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path, most=4)
    yield listener
    listener.close()


def generation(listener: Listener, name: str) -> int | None:
    return listener.begun(id_digest(name)).generation


def test_each_use_of_an_id_is_a_generation_of_its_own(tmp_path: Path, listener: Listener) -> None:
    announcer = Announcer(tmp_path)
    assert not listener.heard
    announcer.announce([Notice("a", True), Notice("b", True)])
    listener.drain()
    assert listener.heard
    first = generation(listener, "a")
    assert first is not None
    assert first == generation(listener, "a") != generation(listener, "b")
    announcer.announce([Notice("a", True)])
    listener.drain()
    assert generation(listener, "a") not in (None, first)


def test_a_request_that_does_not_stream_has_none(tmp_path: Path, listener: Listener) -> None:
    Announcer(tmp_path).announce([Notice("a", True), Notice("a", False)])
    listener.drain()
    assert generation(listener, "a") is None


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("skip", [True, False, None])
def test_what_a_request_says_of_special_tokens_is_heard(
    tmp_path: Path, listener: Listener, streams: bool, skip: bool | None
) -> None:
    assert Announcer(tmp_path).announce([Notice("a", streams, skip)])
    listener.drain()
    begun = listener.begun(id_digest("a"))
    assert begun.skip_special_tokens is skip
    assert (begun.generation is not None) == streams
    assert listener.begun(id_digest("b"))[:2] == (0, None)


def test_what_is_counted_is_heard_between_notices_without_counts(
    tmp_path: Path, listener: Listener
) -> None:
    prompts = (CountedPrompt(9, 9, 5, (2, -1)), CountedPrompt(4, 0, 2**31 - 1))
    notices = [Notice("a", True), Notice("b", False, True, 5, prompts), Notice("c", True)]
    assert Announcer(tmp_path).announce(notices)
    listener.drain()
    begun = listener.begun(id_digest("b"))
    assert begun == (None, True, 5, prompts, False)
    assert [listener.begun(id_digest(name)).asked for name in "ac"] == [0, 0]
    assert generation(listener, "c") not in (None, 0)


def test_a_stop_marks_the_request_of_its_id_until_that_is_used_again(
    tmp_path: Path, listener: Listener
) -> None:
    announcer = Announcer(tmp_path)
    announcer.announce([Notice("a", True), Notice("b", True)])
    listener.drain()
    before = generation(listener, "a")
    announcer.announce([Notice("a", False, cancels=True), Notice("c", False, cancels=True)])
    listener.drain()
    assert listener.begun(id_digest("a"))[:1] == (before,)
    assert [listener.begun(id_digest(name)).cancelled for name in "abc"] == [True, False, False]
    announcer.announce([Notice("a", True)])
    listener.drain()
    assert not listener.begun(id_digest("a")).cancelled


def test_more_than_fits_in_a_datagram_is_said_not_to_be_heard(
    tmp_path: Path, listener: Listener
) -> None:
    prompts = (CountedPrompt(1, 0, 1, tuple(range(255))),) * 200
    announcer = Announcer(tmp_path)
    assert not announcer.announce([Notice("a", False, None, 1, prompts), Notice("b", True)])
    listener.drain()
    assert generation(listener, "a") == 0
    assert generation(listener, "b") not in (None, 0)
    assert announcer.announce([Notice(f"{n}", False, None, 1, prompts[:50]) for n in range(4)])
    listener.drain()
    assert listener.begun(id_digest("3")).prompts == prompts[:50]


def test_only_so_many_ids_are_remembered_the_last_used_ones(
    tmp_path: Path, listener: Listener
) -> None:
    announcer = Announcer(tmp_path)
    announcer.announce([Notice(name, True) for name in "abcd"])
    listener.drain()
    kept = generation(listener, "a")
    announcer.announce([Notice("e", True)])
    listener.drain()
    assert generation(listener, "a") == kept
    assert generation(listener, "b") == 0  # forgotten


def test_thousands_of_notices_are_taken_while_nobody_drains(
    tmp_path: Path, listener: Listener
) -> None:
    announcer = Announcer(tmp_path)
    begin = time.monotonic()
    for _ in range(200):  # far more datagrams than a socket's queue holds
        announcer.announce([Notice(f"{number}", True) for number in range(100)])
    announcer.announce([Notice("last", True)])
    listener.drain()
    assert generation(listener, "last") not in (None, 0)
    assert time.monotonic() - begin < 5


def test_the_long_ids_of_many_requests_fit(tmp_path: Path, listener: Listener) -> None:
    names = ["ü" * 100_000 + str(number) for number in range(5)]
    Announcer(tmp_path).announce([Notice(name, True) for name in names])
    listener.drain()
    assert generation(listener, names[-1]) not in (None, 0)


def test_without_a_listener_announcing_warns_once_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    announcer = Announcer(tmp_path / "nobody")
    assert not announcer.announce([Notice("a", True)])
    assert not announcer.announce([Notice("a", True)])
    assert caplog.text.count("postprocessing cannot be reached") == 1


def test_a_second_listener_hears_nothing_and_says_so(
    tmp_path: Path, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    second = Listener(tmp_path, most=4)
    assert "no notices of new streams" in caplog.text
    Announcer(tmp_path).announce([Notice("a", True)])
    listener.drain()
    second.drain()
    assert (listener.heard, second.heard) == (True, False)
    assert generation(second, "a") == 0  # the id is all there is
    second.close()


def test_a_listener_takes_over_from_the_one_before_it(tmp_path: Path) -> None:
    first = Listener(tmp_path, most=4)
    second = Listener(tmp_path, most=4)
    first.close()
    end = time.monotonic() + 10
    while not Announcer(tmp_path).announce([Notice("a", True)]) and time.monotonic() < end:
        time.sleep(0.05)
    second.drain()
    assert second.heard
    second.close()


def test_the_models_of_a_server_hear_their_own_alone(tmp_path: Path, listener: Listener) -> None:
    named = Listener(tmp_path, 4, "qwen")
    assert Announcer(tmp_path, "qwen").announce([Notice("a", True)])
    named.drain()
    listener.drain()
    assert (named.heard, listener.heard) == (True, False)
    named.close()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can send as another user")
def test_what_another_user_announces_is_dropped(tmp_path: Path, listener: Listener) -> None:
    announcer = Announcer(tmp_path)
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        announcer.announce([Notice("a", True)])
        os._exit(0)
    os.waitpid(child, 0)
    listener.drain()
    assert not listener.heard
    announcer.announce([Notice("b", True)])
    listener.drain()
    assert generation(listener, "b") not in (None, 0)
