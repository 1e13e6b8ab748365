"""A process of a server killed at a random moment under load, KILLS times.

Every request ends, within a hard limit, in its own exact text or in an error; the launcher ends
with status 1 and names the process, so that a supervisor starts it anew; nothing is left.
"""

import os
import random
import time
from pathlib import Path

import httpx
import pytest

from support.load import CLIENT_SECONDS, THINGS, WAYS, Load, Outcome, ask
from support.serving import serve
from support.victims import NAMES, VICTIMS

KILLS = int(os.environ.get("KILLS", "3"))
SEED = int(os.environ.get("KILL_SEED", "7"))
CLIENTS = 16
DEATHS = {"engine": "the engine's process was killed by signal 9"}


@pytest.fixture(scope="module")
def expected(demo_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every client's right answer, asked alone; the same whichever way it is asked."""
    with serve(demo_repo, tmp_path_factory.mktemp("alone"), launcher=True) as launched:
        found = {}
        for number, thing in enumerate(THINGS):
            way = WAYS[number % len(WAYS)]
            outcome = ask(launched.url, f"127.0.0.1:{launched.grpc}", thing, way)
            assert outcome.whole, outcome
            found[thing] = outcome.text
    assert len(set(found.values())) == len(THINGS)
    return found


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_process_ends_every_request_rightly_and_the_server_with_a_reason(
    demo_repo: Path, tmp_path: Path, expected: dict[str, str], number: int
) -> None:
    victim = list(VICTIMS)[number % len(VICTIMS)]
    moment = random.Random(SEED * 1000 + number).uniform(0, 2.5)
    with serve(demo_repo, tmp_path, launcher=True) as launched:
        load = Load(launched.url, launched.grpc, CLIENTS)
        assert load.started.wait(CLIENT_SECONDS)
        time.sleep(moment)
        process = VICTIMS[victim](launched)
        process.kill()
        killed = time.monotonic()
        status, log = launched.ended(20)
        ended = time.monotonic() - killed
        outcomes = load.stop()
        assert status == 1
        assert DEATHS.get(victim, NAMES[victim]) in log
        for outcome in outcomes:
            judge(outcome, expected[outcome.thing])
        last = [outcome for outcome in outcomes if outcome.error]
        assert len(last) == CLIENTS  # all of them saw the server go
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{launched.url}/v2/health/ready", timeout=5)
        launched.assert_nothing_left()
    right = len(outcomes) - len(last)
    print(f"\n{victim} killed after {moment:.2f} s: {right} right, {len(last)} errors,", end=" ")
    print(f"launcher ended in {ended:.2f} s")


def judge(outcome: Outcome, expected: str) -> None:
    """The whole text, or an error and a beginning of it; nobody else's; and in time."""
    if outcome.whole:
        assert outcome.text == expected, outcome
    else:
        assert expected.startswith(outcome.text), outcome
    assert outcome.seconds < CLIENT_SECONDS, outcome
