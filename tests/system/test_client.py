"""tools/client.py, as a user runs it."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from support.asking import KOREAN, ask
from support.paths import ROOT
from trellis.cli.ask import _print as print_answer
from trellis.server.ports import free_ports
from trellis.server.process import Server

CLIENT = ROOT / "tools" / "client.py"


def run(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    url = f"localhost:{server.settings.grpc_port}"
    return subprocess.run(
        [sys.executable, str(CLIENT), "--url", url, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_prints_the_streamed_text(server: Server, http: httpx.Client) -> None:
    prompt = f"{KOREAN}\n" * 4
    result = run(server, prompt, "--max_tokens", "30")
    assert result.stdout == ask(http, prompt, max_tokens=30)["text_output"] + "\n"


def test_every_sampling_option_reaches_the_model(server: Server, http: httpx.Client) -> None:
    options = {"max_tokens": 20, "top_p": 0.9, "top_k": 40, "temperature": 0.7, "seed": 5}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    result = run(server, "Once upon", *arguments, "--stop_words", ".", "--stop_words", "!")
    expected = ask(http, "Once upon", stop_words=[".", "!"], **options)["text_output"]
    assert result.stdout == expected + "\n"


def test_what_was_asked_for_beside_the_text_is_shown_for_the_whole_stream(server: Server) -> None:
    asked = ("--return_finish_reason", "true", "--return_log_probs", "true")
    result = run(server, "Once upon", "--max_tokens", "5", "--end_id", "-1", *asked)
    shown = dict(line.split(": ", 1) for line in result.stderr.splitlines())
    assert shown["finish_reason"] == "['length']"
    assert len(shown["output_log_probs"].split(",")) == 5


def test_an_error_is_one_line_with_the_field(server: Server) -> None:
    result = run(server, "Hello", "--top_p", "7")
    assert result.returncode == 1
    assert "top_p: 7.0 is not allowed" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_server_it_says_so_in_one_line() -> None:
    url = f"localhost:{free_ports(1)[0]}"
    command = [sys.executable, str(CLIENT), "--url", url, "Hello"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"Error: no server answers at {url}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_several_samples_are_the_models_one_after_another(
    server: Server, http: httpx.Client
) -> None:
    sampling = {"num_return_sequences": 3, "temperature": 0.9, "seed": 3, "end_id": -1}
    expected = ask(http, "Once upon", max_tokens=8, **sampling)["text_output"]
    assert len(set(expected)) > 1
    arguments = [text for name, value in sampling.items() for text in (f"--{name}", str(value))]
    result = run(server, "Once upon", "--max_tokens", "8", *arguments)
    assert result.stdout == "".join(f"[{n}] {text}\n" for n, text in enumerate(expected))


def chunk(text: str, sequence: int | None = None) -> dict[str, np.ndarray]:
    """A response as the engines give it: one sequence's new text."""
    arrays = {"text_output": np.array([text.encode()], np.object_)}
    if sequence is not None:
        arrays["sequence_index"] = np.array([[sequence]], np.int32)
    return arrays


def test_chunks_of_samples_that_come_by_turns_are_not_mixed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = {0: ["a", "b", "c"], 1: ["1", "2"], 2: ["x\n", "y", "z"]}
    turns = [chunk(texts[s][n], s) for n in range(3) for s in (2, 0, 1) if n < len(texts[s])]
    print_answer(iter(turns), {"num_return_sequences": 3})
    assert capsys.readouterr().out == "[0] abc\n[1] 12\n[2] x\nyz\n"


def test_the_chunks_of_one_sample_are_printed_as_they_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def responses() -> Iterator[dict[str, np.ndarray]]:
        for text in ("Paris", " is"):
            yield chunk(text)
            assert capsys.readouterr().out == text

    print_answer(responses(), {})
    assert capsys.readouterr().out == "\n"
