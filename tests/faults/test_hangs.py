"""A hang at a random moment under load, HANGS times: seen in time, and every client is answered.

A stopped process (SIGSTOP), a step that never returns while the other threads live, a plugin that
does not.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.edited_engine import edit_engine, source_of
from support.launched import Launched
from support.load import CLIENT_SECONDS, ENSEMBLE, Load, ask
from support.serving import assemble_demo, serve
from support.victims import NAMES, VICTIMS
from trellis.grpc_client import generate

HANGS = int(os.environ.get("HANGS", "4"))
SEED = int(os.environ.get("HANG_SEED", "7"))
TIMEOUT = float(os.environ.get("HANG_TIMEOUT", "5"))
CLIENTS = 9
# Seconds: a step that reads the prompts of all clients may take longer, and a look is now and then.
SEEN = 8.0
LATE = 14.0  # that, and for errors, stacks and the end, on a busy machine

HANGING_STEP = '''

_step = {engine}.step


def _hanging(self):
    """Never returns once there is a file `hang` beside this one."""
    import threading
    from pathlib import Path

    if Path(__file__).with_name("hang").exists() and self.busy:
        threading.Event().wait()
    return _step(self)


{engine}.step = _hanging
'''

HANGING_HOOK = """
import threading


def prompt(text: str) -> str:
    if text == "HANG":
        threading.Event().wait()
    return text
"""


@pytest.mark.parametrize("number", range(HANGS))
def test_a_stopped_process_ends_the_server_in_time_and_every_client_is_answered(
    demo_repo: Path, tmp_path: Path, number: int
) -> None:
    victim = list(VICTIMS)[number % len(VICTIMS)]
    moment = random.Random(SEED * 1000 + number).uniform(0, 2.5)
    with serve(demo_repo, tmp_path, "--hang_timeout", f"{TIMEOUT:g}", launcher=True) as launched:
        load = Load(launched.url, launched.grpc, CLIENTS)
        assert load.started.wait(CLIENT_SECONDS)
        time.sleep(moment)
        process = VICTIMS[victim](launched)
        process.suspend()
        log = ended_in_time(launched)
        outcomes = load.stop()
    assert NAMES[victim] in log
    assert "stopped by a signal" in log
    last = [outcome for outcome in outcomes if outcome.error]
    assert len(last) == CLIENTS  # each saw the server go, and none waited for ever
    launched.assert_nothing_left()
    print(f"\n{victim} stopped after {moment:.2f} s: {len(outcomes) - len(last)} right", end="")


@pytest.mark.promise("hangs")
def test_a_step_that_never_returns_is_answered_with_its_stack_in_the_log(
    demo_repo: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    edit_engine(repo, HANGING_STEP)
    with serve(repo, tmp_path, "--hang_timeout", f"{TIMEOUT:g}", launcher=True) as launched:
        load = Load(launched.url, launched.grpc, CLIENTS)
        assert load.started.wait(CLIENT_SECONDS)
        (source_of(repo) / "hang").touch()
        log = ended_in_time(launched)
        outcomes = load.stop()
    assert "the engine process of tensorrt_llm made no progress" in log
    assert "in _hanging" in log  # its stack
    last = [outcome for outcome in outcomes if outcome.error]
    assert len(last) == CLIENTS
    told = [outcome for outcome in last if "made no progress" in outcome.error]
    assert told, last  # an error that says why, and not only a closed connection
    launched.assert_nothing_left()


class TestPlugins:
    """Code of an outsider's that never returns: a hook, in the gateway and in `preprocessing`."""

    @pytest.fixture
    def launched(self, demo_engine: tuple[Path, Path], tmp_path: Path) -> Iterator[Launched]:
        hooks = tmp_path / "hooks.py"
        hooks.write_text(HANGING_HOOK)
        repo = assemble_demo(demo_engine, tmp_path, hooks=hooks)
        options = ("--hang_timeout", f"{TIMEOUT:g}")
        with serve(repo, tmp_path, *options, launcher=True) as running:
            yield running

    def test_a_gateway_whose_loop_stands_still(self, launched: Launched) -> None:
        with ThreadPoolExecutor(3) as pool:
            good = pool.submit(ask, launched.url, "", "horse", "whole")
            assert good.result().whole
            stream = pool.submit(_read_stream, launched)
            hanging = pool.submit(_generate, launched, "HANG")
            log = ended_in_time(launched)
            assert isinstance(hanging.exception(20), httpx.TransportError)
            assert isinstance(stream.exception(20), httpx.TransportError)
        assert "the HTTP gateway" in log
        assert "made no progress" in log
        assert "in prompt" in log  # its stack
        launched.assert_nothing_left()

    def test_a_batch_of_preprocessing_that_never_ends(self, launched: Launched) -> None:
        with (
            ThreadPoolExecutor(1) as pool,
            triton.InferenceServerClient(f"127.0.0.1:{launched.grpc}") as client,
        ):
            asked = pool.submit(list, generate(client, [b"HANG"], {"max_tokens": 4}, timeout=60))
            log = ended_in_time(launched)
            assert isinstance(asked.exception(20), InferenceServerException)
        assert "the process of preprocessing" in log
        assert "has answered one batch" in log
        assert "in prompt" in log
        launched.assert_nothing_left()


def _generate(launched: Launched, text: str) -> httpx.Response:
    body = {"text_input": text, "max_tokens": 4}
    return httpx.post(f"{launched.url}{ENSEMBLE}/generate", json=body, timeout=CLIENT_SECONDS)


def _read_stream(launched: Launched) -> bytes:
    """A stream that is longer than all this takes."""
    body = {"text_input": "Once", "max_tokens": 8000, "end_id": -1, "stream": True}
    url = f"{launched.url}{ENSEMBLE}/generate_stream"
    with httpx.stream("POST", url, json=body, timeout=CLIENT_SECONDS) as response:
        return response.read()


def ended_in_time(launched: Launched) -> str:
    """What it printed, once it ended with status 1; readiness fails before that."""
    begin = time.monotonic()
    unready = 0.0
    while launched.process.poll() is None and time.monotonic() < begin + TIMEOUT + LATE:
        launched.look()
        if not unready and not is_ready(launched):
            unready = time.monotonic() - begin
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    assert launched.process.poll() == 1, launched.log()[-6000:]
    assert 0 < unready <= TIMEOUT + SEEN
    print(f"\nnot ready after {unready:.1f} s, ended after {seconds:.1f} s", end="")
    return launched.log()


def is_ready(launched: Launched) -> bool:
    try:
        return httpx.get(f"{launched.url}/v2/health/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False
