"""A hang at a random moment under load, HANGS times: seen in time, and every client is answered.

A stopped process (SIGSTOP), and a step that never returns while the other threads live.
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from support.engines import ENGINE
from support.launched import Launched
from support.load import CLIENT_SECONDS, Load
from support.serving import serve

HANGS = int(os.environ.get("HANGS", "4"))
SEED = int(os.environ.get("HANG_SEED", "7"))
TIMEOUT = float(os.environ.get("HANG_TIMEOUT", "5"))
CLIENTS = 9
SEEN = 4.0  # seconds: a step that reads prompts may take longer, and a look is now and then
LATE = 10.0  # seconds: that, and for errors, stacks and the end, on a busy machine

# The file of the step that hangs, its class, and what never returns: Python's lock held or not.
STEPS = (
    ("openvino.py", "OpenVinoEngine")
    if ENGINE == "openvino"
    else ("async_engine.py", "AsyncEngine")
)
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


def engine_process(launched: Launched) -> psutil.Process:
    """The process that makes the steps: with a keeper, the child of that."""
    (process,) = launched.stub("tensorrt_llm").children()[:1]
    below = [each for each in process.children() if ENGINE != "openvino"]
    return below[0] if below else process


VICTIMS: dict[str, Callable[[Launched], psutil.Process]] = {
    "engine": engine_process,
    "tensorrt_llm": lambda launched: launched.stub("tensorrt_llm"),
    "tritonserver": lambda launched: launched.find("tritonserver"),
    "gateway": lambda launched: launched.find("trellis.gateway"),
    "postprocessing": lambda launched: launched.stub("postprocessing"),
    "preprocessing": lambda launched: launched.stub("preprocessing"),
}
NAMES = {
    "engine": "the engine process of tensorrt_llm",
    "gateway": "the HTTP gateway",
    "tritonserver": "tritonserver",
}


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
    assert f"{NAMES.get(victim, f'the process of {victim}')}" in log
    assert "stopped by a signal" in log
    last = [outcome for outcome in outcomes if outcome.error]
    assert len(last) == CLIENTS  # each saw the server go, and none waited for ever
    launched.assert_nothing_left("trellis-*" if ENGINE == "vllm" else "*")
    print(f"\n{victim} stopped after {moment:.2f} s: {len(outcomes) - len(last)} right", end="")


def test_a_step_that_never_returns_is_answered_with_its_stack_in_the_log(
    demo_repo: Path, tmp_path: Path
) -> None:
    repo = hanging(demo_repo, tmp_path)
    with serve(repo, tmp_path, "--hang_timeout", f"{TIMEOUT:g}", launcher=True) as launched:
        load = Load(launched.url, launched.grpc, CLIENTS)
        assert load.started.wait(CLIENT_SECONDS)
        hang(repo)
        log = ended_in_time(launched)
        outcomes = load.stop()
    assert "the engine process of tensorrt_llm made no progress" in log
    assert "in _hanging" in log  # its stack
    last = [outcome for outcome in outcomes if outcome.error]
    assert len(last) == CLIENTS
    told = [outcome for outcome in last if "made no progress" in outcome.error]
    assert told, last  # an error that says why, and not only a closed connection
    launched.assert_nothing_left("trellis-*" if ENGINE == "vllm" else "*")


def hanging(demo_repo: Path, folder: Path) -> Path:
    """A repository whose engine makes a step that never returns, once `hang` is called."""
    repo = folder / "repo"
    shutil.copytree(demo_repo, repo)
    file, engine = STEPS
    source = source_of(repo) / file
    text = source.read_text() + HANGING_STEP.replace("{engine}", engine)
    source.unlink()
    source.write_text(text)
    return repo


def hang(repo: Path) -> None:
    (source_of(repo) / "hang").touch()


def source_of(repo: Path) -> Path:
    return repo / "tensorrt_llm" / "1" / "trellis" / "engine_host" / "engines"


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
