"""An engine whose step raises, a tokenizer that raises: an error for those it concerns, no more.

Which status it has is Triton's: /generate (24.10) says 400 whatever an ensemble's error was.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.edited_engine import edit_engine, source_of
from support.engines import read_demo_engine
from support.launched import Launched
from support.load import ENSEMBLE
from support.probes import add_probes, settled
from support.serving import serve
from trellis.repository.assemble import Plan, assemble

RAISING_STEPS = '''

_step = {engine}.step


def _raising(self):
    """One step raises for every byte in the file `raise` beside this one."""
    from pathlib import Path

    left = Path(__file__).with_name("raise")
    if left.exists() and self.busy:
        count = left.stat().st_size
        left.write_bytes(b"x" * (count - 1)) if count > 1 else left.unlink()
        raise RuntimeError("the step was told to raise")
    yield from _step(self)


{engine}.step = _raising
'''
# A tokenizer_type of an outsider's: GPT-2's, with three faults.
RAISING_TYPE = '''"""raising: gpt2, but for three words."""

from trellis.tokenizers import load as load_type


class Stream:
    def __init__(self, inner, bad):
        self.inner, self.bad = inner, bad

    def push(self, ids):
        if self.bad & set(ids):
            raise ValueError("told to raise in a stream")
        return self.inner.push(ids)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def load(tokenizer_dir, *, add_bos_token: bool = False):
    inner = load_type("gpt2", tokenizer_dir, {"add_bos_token": str(add_bos_token)})
    encode, batch, decode, stream = (
        inner.encode, inner.encode_batch, inner.decode, inner.stream_decoder
    )
    bad = set(inner.encode_fragment(" river"))

    def check(texts):
        if any("NOT THIS" in text for text in texts):
            raise ValueError("told to raise in encode")

    def raising(text):
        check([text])
        return encode(text)

    def raising_batch(texts):
        check(texts)
        return batch(texts)

    def raising_decode(ids):
        if bad & set(ids):
            raise ValueError("told to raise in decode")
        return decode(ids)

    inner.encode = raising
    inner.encode_batch = raising_batch
    inner.decode = raising_decode
    inner.stream_decoder = lambda: Stream(stream(), bad)
    return inner
'''
PROMPT = "I have a {}.\n" * 8
Client = httpx.Client


def body(thing: str, **more: Any) -> dict[str, Any]:
    return {"text_input": PROMPT.replace("{}", thing), "max_tokens": 16, "end_id": -1} | more


def ask(client: Client, **more: Any) -> httpx.Response:
    return client.post(f"{ENSEMBLE}/generate", json=body("horse") | more)


def stream(client: Client, asked: dict[str, Any]) -> tuple[str, str]:
    """The text and the error of a stream; after an error there is nothing more."""
    response = client.post(f"{ENSEMBLE}/generate_stream", json=asked | {"stream": True})
    events = [
        json.loads(line.removeprefix("data: "))
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]
    assert not any("error" in event for event in events[:-1])
    text = "".join(event.get("text_output", "") for event in events)
    return text, "".join(event.get("error", "") for event in events)


def make(engine: tuple[Path, Path], folder: Path, tokenizer: str, type_file: Path | None) -> Path:
    repo = folder / "repo"
    assemble(Plan(read_demo_engine(engine[0]), tokenizer, engine[1], type_file), repo)
    add_probes(repo)
    return repo


class TestRaisingSteps:
    @pytest.fixture(scope="class")
    @classmethod
    def place(
        cls, demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[tuple[Launched, Path]]:
        folder = tmp_path_factory.mktemp("steps")
        repo = make(demo_engine, folder, "gpt2", None)
        edit_engine(repo, RAISING_STEPS)
        with serve(repo, folder, launcher=True, ready=False) as launched:
            yield launched.wait_ready(), repo

    @pytest.mark.promise("faults")
    def test_one_step_fails_those_in_flight_and_nobody_after(
        self, place: tuple[Launched, Path]
    ) -> None:
        launched, repo = place
        with httpx.Client(base_url=launched.url, timeout=60) as client:
            right = ask(client).json()["text_output"]
            with ThreadPoolExecutor(4) as pool:
                waiting = [pool.submit(ask, client, max_tokens=2000) for _ in range(4)]
                time.sleep(2)
                (source_of(repo) / "raise").write_bytes(b"x")
                answers = [future.result() for future in waiting]
            assert all(answer.status_code >= 400 for answer in answers)
            for answer in answers:
                assert "the engine failed: the step was told to raise" in answer.json()["error"]
            assert settled(repo) == {}
            assert ask(client).json()["text_output"] == right
        assert launched.process.poll() is None
        assert "RuntimeError: the step was told to raise" in launched.log()

    @pytest.mark.promise("faults")
    def test_step_after_step_ends_the_server_with_a_reason(
        self, place: tuple[Launched, Path]
    ) -> None:
        launched, repo = place
        (source_of(repo) / "raise").write_bytes(b"x" * 9)
        answers = []
        with httpx.Client(base_url=launched.url, timeout=60) as client:
            for _ in range(6):
                try:
                    answers.append(ask(client))
                except httpx.TransportError:
                    break
        assert len(answers) >= 2
        assert all(answer.status_code >= 400 for answer in answers)
        status, log = launched.ended(30)
        assert status == 1
        assert "the process of tensorrt_llm" in log
        assert "3 steps in a row failed" in log
        launched.assert_nothing_left()


class TestRaisingTokenizer:
    @pytest.fixture(scope="class")
    @classmethod
    def place(
        cls, demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[tuple[Client, Path, Callable[[], str]]]:
        folder = tmp_path_factory.mktemp("tokenizer")
        type_file = folder / "raising.py"
        type_file.write_text(RAISING_TYPE)
        repo = make(demo_engine, folder, "raising", type_file)
        with serve(repo, folder, launcher=True, ready=False) as launched:
            launched.wait_ready()
            with httpx.Client(base_url=launched.url, timeout=60) as client:
                yield client, repo, launched.log

    def test_encode_refuses_that_prompt_alone(
        self, place: tuple[Client, Path, Callable[[], str]]
    ) -> None:
        client, repo, _ = place
        with ThreadPoolExecutor(8) as pool:
            prompts = ["NOT THIS", PROMPT.replace("{}", "horse")] * 4
            answers = list(pool.map(lambda text: ask(client, text_input=text), prompts))
        for answer in answers[::2]:
            assert "the tokenizer failed: told to raise in encode" in answer.json()["error"]
            assert "text_input: " in answer.json()["error"]
        assert {answer.status_code for answer in answers[1::2]} == {200}
        assert settled(repo) == {}

    def test_a_stream_decoder_ends_its_stream_with_an_error(
        self, place: tuple[Client, Path, Callable[[], str]]
    ) -> None:
        client, repo, log = place
        text, error = stream(client, body("river"))
        assert "told to raise" in error
        assert "river" not in text
        assert stream(client, body("horse")) == (ask(client).json()["text_output"], "")
        assert settled(repo) == {}
        assert "told to raise" in log()

    def test_a_whole_answer_that_cannot_be_decoded_is_an_error(
        self, place: tuple[Client, Path, Callable[[], str]]
    ) -> None:
        client, repo, _ = place
        answer = client.post(f"{ENSEMBLE}/generate", json=body("river"))
        assert answer.status_code >= 400
        assert "the tokens could not be decoded: told to raise" in answer.json()["error"]
        assert settled(repo) == {}

    def test_a_stop_matcher_ends_its_answer_with_an_error(
        self, place: tuple[Client, Path, Callable[[], str]]
    ) -> None:
        client, repo, _ = place
        answer = client.post(f"{ENSEMBLE}/generate", json=body("river", stop_words=["zzz"]))
        assert answer.status_code >= 400
        assert "told to raise" in answer.json()["error"]
        assert ask(client, stop_words=["zzz"]).status_code == 200
        assert settled(repo) == {}
