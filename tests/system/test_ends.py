"""What ends an answer, and what of special tokens a client sees: on a real server, by every way."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from support.asking import ask, chat, refused, stream, tensor
from support.engines import needs
from support.serving import serve_demo
from trellis.grpc_client import generate
from trellis.server.process import Server
from trellis.tokenizers import Tokenizer, load

PROMPT = chat("What is the capital of France?")
IM_END, ENDOFTEXT, VOCABULARY = 2, 0, 49152
NONE = {"end_id": -1, "max_tokens": 24}


@pytest.fixture(scope="module")
def tokenizer(demo_engine: tuple[Path, Path]) -> Tokenizer:
    return load("gpt2", demo_engine[1])


@pytest.fixture(scope="module")
def grpc(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        yield client


@pytest.fixture(scope="module")
def direct(server: Server) -> Iterator[httpx.Client]:
    """Past the gateway: every request goes through the three models."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.triton_port}", timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def answer(http: httpx.Client) -> str:
    """The whole answer, which the model ends."""
    said = ask(http, PROMPT, return_finish_reason=True)
    assert said["finish_reason"] == "stop"
    text: str = said["text_output"]
    return text


@pytest.fixture(scope="module")
def shown(http: httpx.Client, answer: str) -> str:
    """What the model goes on with, special tokens and all."""
    text: str = ask(http, PROMPT, skip_special_tokens=False, **NONE)["text_output"]
    assert text.startswith(f"{answer}<|im_end|>\n<|im_end|>")
    return text


def ways(
    http: httpx.Client,
    direct: httpx.Client,
    grpc: triton.InferenceServerClient,
    prompt: str,
    **values: Any,
) -> dict[str, str]:
    """The text of one request by every way; that of a stream never takes anything back."""
    found = {}
    for name, client in (("front", http), ("triton", direct)):
        found[name] = ask(client, prompt, **values)["text_output"]
        found[f"{name}, streamed"] = b"".join(stream(client, prompt, **values)).decode()
    for streams in (False, True):
        answers = generate(grpc, [prompt.encode()], values | {"stream": streams})
        found[f"grpc {streams}"] = "".join(a["text_output"].item().decode() for a in answers)
    return found


@pytest.mark.parametrize("word", ["<|im_end|>", "LAST<|im_end|>", ".<|im_end|>\n", "|>\n<|im"])
@pytest.mark.parametrize("skip", [True, False])
def test_a_stop_word_of_special_tokens_or_with_one_ends_the_text_before_it(
    http: httpx.Client,
    direct: httpx.Client,
    grpc: triton.InferenceServerClient,
    answer: str,
    shown: str,
    word: str,
    skip: bool,
) -> None:
    word = word.replace("LAST", answer.split()[-1])
    values = {"stop_words": [word], "skip_special_tokens": skip, **NONE}
    wanted = shown.partition(word)[0].removesuffix("<|im_end" if skip and word[0] == "|" else "")
    if skip and word == "|>\n<|im":  # the letters of no whole token: they are not in the text
        wanted = ask(http, PROMPT, **NONE)["text_output"]
    texts = ways(http, direct, grpc, PROMPT, **values)
    assert texts == dict.fromkeys(texts, wanted)
    said = ask(http, PROMPT, return_finish_reason=True, **values)
    assert said["finish_reason"] == ("stop" if wanted in shown[: len(answer) + 9] else "length")


def test_a_stop_word_may_end_with_the_id_that_ends_the_answer(
    http: httpx.Client, answer: str
) -> None:
    word = answer[-5:] + "<|im_end|>"
    assert ask(http, PROMPT, stop_words=[word])["text_output"] == answer[:-5]
    assert b"".join(stream(http, PROMPT, stop_words=[word])).decode() == answer[:-5]
    assert ask(http, PROMPT, stop_words=["<|im_end|>"])["text_output"] == answer
    assert ask(http, PROMPT, stop_words=[word + "x"])["text_output"] == answer


@pytest.mark.parametrize("end", [{"end_id": -1}, {}, {"end_id": 7}])
def test_stop_token_ids_end_an_answer_whatever_end_id_says(
    http: httpx.Client,
    direct: httpx.Client,
    grpc: triton.InferenceServerClient,
    tokenizer: Tokenizer,
    answer: str,
    end: dict[str, int],
) -> None:
    ids = tokenizer.encode_fragment(answer)
    values: dict[str, Any] = end | {"stop_token_ids": [ids[3], ids[5]], "max_tokens": 24}
    texts = ways(http, direct, grpc, PROMPT, **values)
    assert texts == dict.fromkeys(texts, tokenizer.decode(ids[:3]))
    said = ask(http, PROMPT, return_finish_reason=True, return_num_output_tokens=True, **values)
    assert (said["finish_reason"], said["num_output_tokens"]) == ("stop", 3)
    values["stop_token_ids"] = [IM_END]  # one alone is a number in Triton's JSON
    texts = ways(http, direct, grpc, PROMPT, **values)
    assert texts == dict.fromkeys(texts, answer)


@needs("min_tokens beside several ends")
def test_min_tokens_holds_for_every_id_that_ends_an_answer(
    http: httpx.Client, tokenizer: Tokenizer, answer: str
) -> None:
    ids = tokenizer.encode_fragment(answer)
    said = ask(
        http,
        PROMPT,
        stop_token_ids=[ids[3], ids[5]],
        min_tokens=6,
        max_tokens=24,
        return_num_output_tokens=True,
    )
    assert said["num_output_tokens"] >= 6
    assert not {ids[3], ids[5]} & set(tokenizer.encode_fragment(said["text_output"])[:6])


def test_sequences_end_at_stop_token_ids_each_by_itself(
    http: httpx.Client, tokenizer: Tokenizer
) -> None:
    asked = {"num_return_sequences": 4, "temperature": 0.9, "seed": 3, "max_tokens": 40}
    of, dot = tokenizer.encode_fragment(" of")[0], tokenizer.encode_fragment(".")[0]
    texts = ask(http, PROMPT, end_id=-1, stop_token_ids=[of, dot], **asked)["text_output"]
    assert not [text for text in texts if " of" in text or text.endswith(".")]


def test_every_row_of_a_batch_has_ends_of_its_own(
    grpc: triton.InferenceServerClient, http: httpx.Client, tokenizer: Tokenizer, answer: str
) -> None:
    ids = tokenizer.encode_fragment(answer)
    end_id = [ids[4], -1, IM_END]
    stop = [[ids[6], ids[6]], [ids[2], ids[-1]], [VOCABULARY - 1, VOCABULARY - 1]]
    wanted = [tokenizer.decode(ids[:4]), tokenizer.decode(ids[:2]), answer]
    rows = np.array([[PROMPT.encode()]] * 3, np.object_)
    tensors = [
        tensor("text_input", "BYTES", rows),
        tensor("max_tokens", "INT32", np.full((3, 1), 24, np.int32)),
        tensor("end_id", "INT32", np.array(end_id, np.int32).reshape(3, 1)),
        tensor("stop_token_ids", "INT32", np.array(stop, np.int32)),
    ]
    for streams in (False, True):
        flag = tensor("stream", "BOOL", np.full((3, 1), streams))
        assert texts_of(grpc, [*tensors, flag], 3) == wanted


def texts_of(
    grpc: triton.InferenceServerClient, tensors: list[triton.InferInput], rows: int
) -> list[str]:
    """The text of each row of one request."""
    found, done, errors = [""] * rows, threading.Event(), []

    def take(result: Any, error: Any) -> None:
        if error is not None:
            errors.append(error)
            done.set()
            return
        texts = result.as_numpy("text_output")
        if texts is not None:
            index = result.as_numpy("batch_index")
            first = 0 if index is None else int(index.reshape(-1)[0])
            for at, text in enumerate(texts.reshape(-1).tolist()):
                found[first + at] += text.decode()
        if result.get_response().parameters["triton_final_response"].bool_param:
            done.set()

    grpc.start_stream(take)
    try:
        grpc.async_stream_infer("ensemble", tensors, enable_empty_final_response=True)
        assert done.wait(60)
    finally:
        grpc.stop_stream()
    assert not errors, errors
    return found


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"stop_token_ids": [-1]}, "stop_token_ids: -1 is not in the vocabulary; use 0 to"),
    "outside": ({"stop_token_ids": [5, VOCABULARY]}, f"stop_token_ids: {VOCABULARY} is not in"),
    "many": ({"stop_token_ids": list(range(65))}, "stop_token_ids: 65 ids; send at most 64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_stop_token_id_is_refused_by_name(
    http: httpx.Client, direct: httpx.Client, case: str
) -> None:
    values, message = WRONG[case]
    body = {"text_input": "Hi", "max_tokens": 4, **values}
    for client in (http, direct):
        assert message in refused(client, body)


@needs("search over beams")
def test_beams_do_not_wait_for_min_tokens_and_say_so(http: httpx.Client) -> None:
    body = {"text_input": "Hi", "max_tokens": 4, "beam_width": 2, "min_tokens": 3}
    assert "beam_width: a search over beams has no min_tokens" in refused(http, body)


def test_special_tokens_are_shown_where_a_request_asks_for_them_and_nowhere_else(
    http: httpx.Client, direct: httpx.Client, grpc: triton.InferenceServerClient, shown: str
) -> None:
    hidden = shown.replace("<|im_end|>", "").replace("<|im_start|>", "")
    for asked, wanted in ((False, shown), (True, hidden), (None, hidden)):
        values = NONE if asked is None else NONE | {"skip_special_tokens": asked}
        texts = ways(http, direct, grpc, PROMPT, **values)
        assert texts == dict.fromkeys(texts, wanted)


def test_requests_that_run_together_show_special_tokens_each_as_it_asked(
    direct: httpx.Client, shown: str
) -> None:
    hidden = shown.replace("<|im_end|>", "").replace("<|im_start|>", "")
    asked = [False, True, None, False, None, False]
    found: list[str] = [""] * len(asked)

    def take(at: int) -> None:
        values = {} if asked[at] is None else {"skip_special_tokens": asked[at]}
        found[at] = b"".join(stream(direct, PROMPT, **NONE, **values)).decode()

    threads = [threading.Thread(target=take, args=(at,)) for at in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [shown if one is False else hidden for one in asked]


def test_the_rows_of_a_batch_share_what_they_show(
    grpc: triton.InferenceServerClient, shown: str
) -> None:
    for streams in (False, True):
        values = NONE | {"skip_special_tokens": False, "stream": streams}
        texts = [""] * 2
        for said in generate(grpc, [PROMPT.encode()] * 2, values):
            index = said["batch_index"].item() if "batch_index" in said else 0
            for at, text in enumerate(said["text_output"].reshape(-1).tolist()):
                texts[index + at] += text.decode()
        assert texts == [shown, shown]


def test_the_prompt_before_an_answer_shows_its_special_tokens_too(http: httpx.Client) -> None:
    values = {"exclude_input_in_output": False, "skip_special_tokens": False}
    assert ask(http, PROMPT, **values)["text_output"].startswith(PROMPT)
    assert "<|im" not in ask(http, PROMPT, exclude_input_in_output=False)["text_output"]


def test_a_bad_word_that_is_a_special_token_or_holds_one_never_appears(
    http: httpx.Client, shown: str
) -> None:
    assert "<|im_end|>\n" in shown
    for word in ("<|im_end|>", "<|im_start|>", "<|im_end|>\n"):
        text = ask(http, PROMPT, bad_words=[word], skip_special_tokens=False, **NONE)["text_output"]
        assert word not in text
        assert text


def test_generation_config_ends_answers_where_it_says(
    demo_engine: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer, answer: str
) -> None:
    """A tokenizer folder as published, with two ids: one of them comes early here."""
    engine, files = demo_engine
    ids = tokenizer.encode_fragment(answer)
    folder = tmp_path / "smollm2-tokenizer"
    folder.mkdir()
    for file in files.iterdir():
        os.link(file, folder / file.name)
    listed = {"eos_token_id": [IM_END, ids[3]]}
    (folder / "generation_config.json").write_text(json.dumps(listed))
    with serve_demo((engine, folder), tmp_path, {}) as server:
        early = tokenizer.decode(ids[:3])
        for port in (server.settings.http_port, server.triton_port):
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
                said = ask(client, PROMPT, return_finish_reason=True)
                assert (said["text_output"], said["finish_reason"]) == (early, "stop")
                assert b"".join(stream(client, PROMPT)).decode() == early
                assert ask(client, PROMPT, end_id=IM_END)["text_output"] == answer
                whole = ask(client, PROMPT, **NONE)["text_output"]
                assert whole.startswith(answer + "\n")
                both = ask(client, PROMPT, end_id=-1, stop_token_ids=[IM_END])["text_output"]
                assert both == answer
                many = list(range(40_000, 40_064))  # as many as a request may send
                assert ask(client, PROMPT, stop_token_ids=many)["text_output"] == early
