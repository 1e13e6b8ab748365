"""OpenAI's API on a real server: the text of /generate, streams that add up, errors by field."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.asking import ask, chat
from support.openai_api import (
    CHAT,
    COMPLETIONS,
    MODEL,
    RESPONSES,
    error,
    events,
    joined,
    plain,
    post,
    user,
)
from support.serving import serve_demo
from support.two_ways import two_ways
from support.waiting import wait_for
from trellis.server.process import Server

QUESTION = "Say hello in Korean and name three emoji."
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Seoul", "Lima"]}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "description": "The time"}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}
CALL = {"name": "weather", "arguments": '{"city": "Lima"}'}
CALLED: list[dict[str, Any]] = [
    {
        "role": "assistant",
        "tool_calls": [{"id": "call00001", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "call00001", "content": "sunny"},
]

# What both ways and both forms (whole and stream) must answer alike.
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "log probabilities": {"logprobs": True},
    # Short: two sequences share steps as they come, and the model has a near tie further on.
    "two sequences": {"n": 2, "max_tokens": 8},
    "two sequences with log probabilities": {"n": 2, "logprobs": True, "max_tokens": 8},
    "a stop string": {"stop": "help"},
    "stop strings": {"stop": ["!", "zzz"]},
    "a stop string with a comma": {"stop": "Hello, w"},
    "a special token as a stop string": {"stop": ["<|im_end|>"], "ignore_eos": True},
    "sampling": {"temperature": 1.2, "top_p": 0.9, "top_k": 40, "seed": 11},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.2},
    "min_tokens": {"min_tokens": 10, "ignore_eos": True},
    "special tokens kept": {"skip_special_tokens": False, "max_tokens": 60},
    "a stop string with log probabilities": {"stop": ["elp", "zzz"], "logprobs": True},
    "min_p": {"temperature": 1.0, "min_p": 0.2, "seed": 3},
    "an end by id": {"stop_token_ids": [28, 30]},
    "max_completion_tokens": {"max_tokens": None, "max_completion_tokens": 3},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]},
    "a system message": {"messages": [{"role": "system", "content": "Be brief."}, *user("Hi")]},
    "a schema": {"response_format": FORM, "max_tokens": 60},
    "a schema and log probabilities": {"response_format": FORM, "logprobs": True},
    "an object": {"response_format": {"type": "json_object"}, "seed": 5, "temperature": 1},
    "a choice": {"structured_outputs": {"choice": ["no way", "yes, 안녕"]}, "n": 2},
    "an expression": {"guided_regex": "[a-z]{3} [0-9]{3}", "seed": 5, "temperature": 1},
    "a grammar": {"guided_grammar": 'root ::= "a" root | "b"'},
    "calls that may be": {"tools": TOOLS, "max_tokens": 40},
    "calls that must be": {"tools": TOOLS, "tool_choice": "required", "max_tokens": 60},
    "a call that must be": {"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 60},
    "a call cut off": {"tools": TOOLS, "tool_choice": NAMED, "max_tokens": 12},
    "a call with log probabilities": {
        "tools": TOOLS,
        "tool_choice": NAMED,
        "max_tokens": 60,
        "logprobs": True,
    },
    "a call or a document": {"tools": TOOLS, "response_format": FORM, "max_tokens": 60},
    "an answer after a call": {
        "tools": TOOLS,
        "messages": [*user(QUESTION), *CALLED],
    },
    "harmless fields": {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "logit_bias": None,
        "parallel_tool_calls": True,
    },
}
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a list": {"prompt": ["Once upon", "안녕 🙂"]},
    "ids": {"prompt": [1, 2, 3]},
    "lists of ids": {"prompt": [[1, 2, 3], [4, 5]], "n": 2},
    "log probabilities": {"logprobs": 0},
    "the prompt too": {"echo": True},
    "the prompt alone": {"echo": True, "max_tokens": 0},
    "ids shown": {"prompt": [[19556, 905]], "echo": True},
    "a stop string": {"stop": "."},
    "a stop string with log probabilities": {"stop": [" a", "."], "logprobs": 0},
}
# A field that is at fault -> what is sent; the error names it.
WRONG: dict[str, Any] = {
    "temperature": [-1, "hot", True, [1]],
    "top_p": [0, 1.5],
    "max_tokens": [0, -1, 1.5, 10**10, 1_000_000],
    "max_completion_tokens": [0, "9"],
    "n": [0, 1000, 1.5],
    "seed": ["x", 2**70],
    "stop": [1, ["a"] * 100, ["x" * 2000]],
    "stream": ["yes", 1],
    "logprobs": [5, "yes"],
    "top_logprobs": [2, 21, -1],
    "logit_bias": [{"x": 1}, {"999999": 1}, {"1": 101}, [1], {"1": 1}],
    "stop_token_ids": [[-1], [10**7], 5],
    "tools": [{}, "f"],
    "tools[0].function": [[{"type": "function"}]],
    "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
    "response_format": ["json_object"],
    "response_format.type": [{"type": "xml"}],
    "functions": [[{"name": "f"}]],
    "modalities": [["text", "audio"]],
    "store": [True],
    "stream_options": [{"include_usage": True}],
    "best_of": [3],
    "service_tier": ["flex"],
    "chat_template": ["{{ messages }}"],
    "maxTokens": [5],
    "min_tokens": [-1, 25],
    "frequency_penalty": ["x", 3],
    "messages": [
        [],
        "Hi",
        None,
    ],
    "messages[0].role": [[{"role": "boss", "content": "x"}]],
    "messages[0].content": [[{"role": "user", "content": 5}], [{"role": "user"}]],
    "messages[0].content[0].type": [
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
    ],
    "messages[0].colour": [[{"role": "user", "content": "x", "colour": "red"}]],
}


@pytest.fixture(scope="module")
def ways(server: Server) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    command = server.process.args
    assert isinstance(command, list)
    repo = str(server.settings.model_repo.resolve())
    with two_ways([str(word) for word in command], server.process.pid, repo) as clients:
        yield clients


def alike(ways: tuple[httpx.Client, httpx.Client], path: str, body: dict[str, Any]) -> Any:
    """The answer, which has to be the same by both ways, whole and streamed.

    But for the tokens from the engine's cache, which Triton's tensors do not tell.
    """
    answers = []
    for client in ways:
        answers.append(plain(post(client, path, **body)))
        usage = {"stream_options": {"include_usage": True}}
        answers.append(joined(events(client, path, **body, **usage)))
    for each in answers:
        each["usage"].pop("prompt_tokens_details", None)
    for other in answers[1:]:
        assert close(other, answers[0]), (other, answers[0])
    return answers[0]


def close(one: Any, other: Any) -> bool:
    """Whether all is equal, and log probabilities nearly: sequences share steps as they come."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 0.2
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(one == other)


@pytest.mark.promise("one answer")
@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_the_same_whole_and_streamed_by_both_ways(
    ways: tuple[httpx.Client, httpx.Client], name: str
) -> None:
    body = {"messages": user(QUESTION), **GREEDY, **CHATS[name]}
    answer = alike(ways, CHAT, body)
    assert len(answer["choices"]) == body.get("n", 1)
    assert answer["usage"]["completion_tokens"] <= 60 * body.get("n", 1)


@pytest.mark.parametrize("name", TEXTS)
def test_completions_are_the_same_whole_and_streamed_by_both_ways(
    ways: tuple[httpx.Client, httpx.Client], name: str
) -> None:
    answer = alike(ways, COMPLETIONS, {"prompt": "Once", **GREEDY, "max_tokens": 8, **TEXTS[name]})
    assert answer["usage"]["prompt_tokens"] > 0


def test_an_answer_may_end_at_its_first_token(ways: tuple[httpx.Client, httpx.Client]) -> None:
    """As OpenAI's may; that of /generate has at least one token unless it asks for none."""
    http, by_triton = ways

    def ends(path: str, **body: Any) -> dict[str, Any]:
        """What ends an answer at the token that it begins with."""
        (choice,) = post(http, path, **body | {"max_tokens": 1})["choices"]
        found = choice["logprobs"].get("tokens") or [choice["logprobs"]["content"][0]["token"]]
        ids = post(http, "/tokenize", prompt=found[0], add_special_tokens=False)["tokens"]
        assert len(ids) == 1
        return {"stop_token_ids": ids}

    body: dict[str, Any] = {"prompt": "Once", "temperature": 0, "max_tokens": 2}
    body |= ends(COMPLETIONS, **body, logprobs=0)
    for more, text in (({}, ""), ({"echo": True}, "Once")):
        answer = alike(ways, COMPLETIONS, {**body, **more})
        (choice,) = answer["choices"]
        assert (choice["text"], choice["finish_reason"]) == (text, "stop")
        assert answer["usage"]["completion_tokens"] == 0
    assert post(http, COMPLETIONS, **body, min_tokens=1)["choices"][0]["text"] != ""
    for way, more, tokens in (
        (http, {"echo": True}, ["Once"]),
        (http, {}, []),
        (by_triton, {}, []),
    ):
        (choice,) = post(way, COMPLETIONS, **body, **more, logprobs=0)["choices"]
        assert choice["logprobs"]["tokens"] == tokens

    chat_body = {"messages": user(QUESTION), **GREEDY}
    end = ends(CHAT, **chat_body, logprobs=True)
    (choice,) = alike(ways, CHAT, {**chat_body, **end})["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    asked = {"input": QUESTION, "temperature": 0, "max_output_tokens": 24, **end}
    (item,) = post(http, RESPONSES, **asked)["output"]
    assert item["content"][0]["text"] == ""
    last = events(http, RESPONSES, **asked)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.completed", "completed")
    assert last["response"]["output"][0]["content"] == item["content"]


def test_a_chat_has_the_text_of_generate(http: httpx.Client) -> None:
    prompt = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{chat(QUESTION)}"
    expected = ask(http, prompt, temperature=0, max_tokens=24, return_num_input_tokens=True)
    answer = post(http, CHAT, messages=user(QUESTION), **GREEDY)
    assert answer["choices"][0]["message"]["content"] == expected["text_output"]
    assert answer["usage"]["prompt_tokens"] == expected["num_input_tokens"]
    assert answer["usage"]["completion_tokens"] == 24


def test_completions_have_the_text_of_generate(http: httpx.Client) -> None:
    expected = ask(http, "The capital of France is", temperature=0, max_tokens=16)
    answer = post(http, COMPLETIONS, prompt="The capital of France is", temperature=0)
    assert answer["choices"][0]["text"] == expected["text_output"]
    echoed = post(http, COMPLETIONS, prompt="The capital of France is", temperature=0, echo=True)
    assert echoed["choices"][0]["text"] == "The capital of France is" + expected["text_output"]


def test_sampling_is_asked_for_where_no_temperature_is_sent(http: httpx.Client) -> None:
    texts = {
        post(http, CHAT, messages=user("Invent a word."), max_tokens=12, seed=seed)["choices"][0][
            "message"
        ]["content"]
        for seed in range(6)
    }
    assert len(texts) > 1


def test_sequences_of_one_seed_differ(http: httpx.Client) -> None:
    body = {"messages": user("Invent a word."), "max_tokens": 12, "seed": 3, "n": 4}
    made = post(http, CHAT, **body)["choices"]
    assert len({each["message"]["content"] for each in made}) > 1


def test_a_seed_has_its_answer_again(http: httpx.Client) -> None:
    body = {"messages": user("Invent a word."), "max_tokens": 12, "seed": 3}
    one, two = (post(http, CHAT, **body)["choices"] for _ in range(2))
    assert one == two


def test_log_probabilities_are_those_of_generate(http: httpx.Client) -> None:
    expected = ask(http, "Once upon", temperature=0, max_tokens=6, return_log_probs=True)
    body = {"prompt": "Once upon", "temperature": 0, "max_tokens": 6}
    found = post(http, COMPLETIONS, **body, logprobs=0)["choices"][0]["logprobs"]
    assert found["token_logprobs"] == pytest.approx(expected["output_log_probs"], abs=1e-6)
    assert "".join(found["tokens"]) == expected["text_output"]
    ends = [
        at + len(token) for at, token in zip(found["text_offset"], found["tokens"], strict=True)
    ]
    assert found["text_offset"] == [0, *ends[:-1]]


def test_tokens_that_are_no_whole_characters_have_their_bytes(http: httpx.Client) -> None:
    body = {"messages": user("Repeat: 🙂 안녕"), "logprobs": True, **GREEDY}
    answer = post(http, CHAT, **body)["choices"][0]
    data = b"".join(bytes(each["bytes"]) for each in answer["logprobs"]["content"])
    text = answer["message"]["content"]
    assert data.decode(errors="ignore").removesuffix("<|im_end|>").startswith(text[:-1])


@pytest.mark.promise("rejections")
@pytest.mark.parametrize("name", WRONG)
def test_a_field_at_fault_is_named(http: httpx.Client, name: str) -> None:
    for value in WRONG[name]:
        field = name.partition("[")[0]
        found = error(http, CHAT, {"model": MODEL, "messages": user("Hi"), **GREEDY, field: value})
        assert found["param"].startswith(name), (value, found)
        assert found["message"].startswith(f"{found['param']}: "), found
        assert found["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, 10**6]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": ["a"] * 300}, "prompt"),
        ({"prompt": "a " * 9000}, "prompt"),
        ({"prompt": "a", "max_tokens": 8192}, "max_tokens"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 3}, "logprobs"),
        ({"prompt": "a", "messages": []}, "messages"),
        ({}, "prompt"),
    ],
)
def test_a_completion_at_fault_is_named(
    http: httpx.Client, body: dict[str, Any], param: str
) -> None:
    found = error(http, COMPLETIONS, {"model": MODEL, **body})
    assert found["param"] == param, found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"model": "\xff"}',
        b'{"a": NaN}',
        b"[" * 100,
        b'{"n": "\\ud800"}',
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, "/tokenize", "/v1/embeddings"])
def test_what_is_no_request_is_a_400(http: httpx.Client, path: str, body: bytes) -> None:
    response = http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_models_and_paths_that_are_not_there(http: httpx.Client) -> None:
    for name in ("nope", "tensorrt_llm", "ensemble_ids", "../x", "x" * 200):
        body = {"model": name, "messages": user("Hi")}
        found = error(http, CHAT, body, status=404)
        assert (found["code"], found["param"]) == ("model_not_found", "model")
    assert http.get("/v1/models/nope").json()["error"]["code"] == "model_not_found"
    for method, path, status in (("GET", CHAT, 405), ("POST", "/v1/audio/speech", 404)):
        response = http.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["message"].startswith(path)


def test_models_are_listed(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()
    assert [each["id"] for each in listed["data"]] == [MODEL]
    assert listed["data"][0]["created"] > time.time() - 86_400 * 365
    assert listed["data"][0]["max_model_len"] == 8192  # the demo's context_length
    assert http.get(f"/v1/models/{MODEL}").json() == listed["data"][0]


def test_texts_are_tokenized_and_back(http: httpx.Client) -> None:
    made = post(http, "/tokenize", prompt="안녕 🙂 world", return_token_strs=True)
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"])
    assert post(http, "/detokenize", tokens=made["tokens"])["prompt"] == "안녕 🙂 world"
    turns = post(http, "/tokenize", messages=user("Hi"))["tokens"]
    text = post(http, "/detokenize", tokens=turns)["prompt"]
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    usage = post(http, CHAT, messages=user("Hi"), max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == len(turns)
    assert error(http, "/detokenize", {"model": MODEL, "tokens": [10**6]})["param"] == "tokens"


def test_a_message_is_continued(http: httpx.Client) -> None:
    begun = [*user("Count to five."), {"role": "assistant", "content": "One, two, thr"}]
    body = {"messages": begun, "continue_final_message": True, **GREEDY}
    turns = post(http, "/tokenize", messages=begun, continue_final_message=True)["tokens"]
    assert post(http, "/detokenize", tokens=turns)["prompt"].endswith("\nOne, two, thr")
    assert post(http, CHAT, **body)["usage"]["prompt_tokens"] == len(turns)
    wrong = {"model": MODEL, **body, "add_generation_prompt": True}
    assert error(http, CHAT, wrong)["param"] == "continue_final_message"


def test_a_response_is_the_chat_s_text(http: httpx.Client) -> None:
    greedy = {"temperature": 0, "max_output_tokens": 24}
    expected = post(http, CHAT, messages=user(QUESTION), **GREEDY)
    answer = post(http, RESPONSES, input=QUESTION, **greedy)
    text = expected["choices"][0]["message"]["content"]
    assert answer["output"][0]["content"][0]["text"] == text
    assert answer["usage"]["output_tokens"] == expected["usage"]["completion_tokens"]
    assert (answer["status"], answer["store"]) == ("incomplete", False)
    made = events(http, RESPONSES, input=QUESTION, **greedy)
    assert [each["sequence_number"] for each in made] == list(range(len(made)))
    assert "".join(each.get("delta", "") for each in made) == text
    last = made[-1]["response"]
    assert made[-1]["type"] == "response.incomplete"
    assert last["output"][0]["content"] == answer["output"][0]["content"]
    assert last["usage"] == answer["usage"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        (
            {
                "include": ["message.output_text.logprobs"],
                "tools": [{"type": "function", "name": "f"}],
            },
            "include",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": 5}], "instructions": "x"}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_a_response_at_fault_is_named(http: httpx.Client, body: Any, param: str) -> None:
    found = error(http, RESPONSES, {"model": MODEL, "input": "Hi", **body})
    assert found["param"] == param, found


def test_log_probabilities_are_those_of_the_tokens_of_the_text(http: httpx.Client) -> None:
    body = {"messages": user(QUESTION), **GREEDY, "logprobs": True}
    whole = post(http, CHAT, **body)["choices"][0]
    stop = whole["message"]["content"][6:12]
    stopped = post(http, CHAT, **body, stop=[stop])["choices"][0]
    assert stopped["finish_reason"] == "stop"
    found = stopped["logprobs"]["content"]
    assert 0 < len(found) < len(whole["logprobs"]["content"])
    assert found == whole["logprobs"]["content"][: len(found)]


def test_a_stop_string_is_left_out_or_kept(http: httpx.Client) -> None:
    body = {"messages": user(QUESTION), **GREEDY}
    whole = post(http, CHAT, **body)["choices"][0]["message"]["content"]
    word = whole[5:9]
    without, kept = (
        post(http, CHAT, **body, stop=[word], include_stop_str_in_output=include)
        for include in (False, True)
    )
    start = whole.index(word)
    assert without["choices"][0]["message"]["content"] == whole[:start]
    assert kept["choices"][0]["message"]["content"] == whole[: start + len(word)]
    assert kept["choices"][0]["finish_reason"] == "stop"
    made = joined(events(http, CHAT, **body, stop=[word], include_stop_str_in_output=True))
    assert made["choices"][0]["text"] == whole[: start + len(word)]
    assert without["usage"] == kept["usage"]


def test_the_likeliest_token_and_the_prompt_s_log_probabilities(http: httpx.Client) -> None:
    body = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 3}
    found = post(http, COMPLETIONS, **body, logprobs=1)["choices"][0]["logprobs"]
    assert [max(each.values()) for each in found["top_logprobs"]] == found["token_logprobs"]
    echoed = post(http, COMPLETIONS, **body, echo=True, logprobs=0)["choices"][0]
    made = echoed["logprobs"]
    assert made["token_logprobs"][0] is None
    assert all(each <= 0 for each in made["token_logprobs"][1:])
    assert made["tokens"][-3:] == found["tokens"]
    assert "".join(made["tokens"]) == echoed["text"]
    assert (
        made["text_offset"][1:]
        == [at + len(token) for at, token in zip(made["text_offset"], made["tokens"], strict=True)][
            :-1
        ]
    )
    alone = post(http, COMPLETIONS, **body | {"max_tokens": 0}, echo=True, logprobs=0)
    assert alone["choices"][0]["logprobs"]["tokens"] == made["tokens"][:-3]
    assert alone["usage"]["completion_tokens"] == 0


def test_usage_comes_with_every_chunk_where_it_is_asked(http: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    made = events(http, CHAT, messages=user(QUESTION), stream_options=options, **GREEDY)
    counts = [each["usage"]["completion_tokens"] for each in made]
    assert counts == sorted(counts)
    assert counts[-1] == 24
    assert all(each["usage"]["prompt_tokens"] == made[0]["usage"]["prompt_tokens"] for each in made)


def test_the_role_comes_once_with_the_first_text(http: httpx.Client) -> None:
    made = events(http, CHAT, messages=user(QUESTION), **GREEDY)
    deltas = [each["choices"][0]["delta"] for each in made]
    assert deltas[0]["role"] == "assistant"
    assert deltas[0]["content"]
    assert not any("role" in delta for delta in deltas[1:])


@pytest.mark.promise("disconnects")
def test_a_client_that_leaves_frees_all_its_sequences(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    long = {"model": MODEL, "messages": user("Tell a long story."), "ignore_eos": True}
    long |= {"max_tokens": 4000, "n": 4, "stream": True}
    with (
        serve_demo(demo_engine, tmp_path, {"triton_max_batch_size": "4"}) as server,
        httpx.Client(base_url=server.settings.url, timeout=60) as http,
    ):
        with http.stream("POST", CHAT, json=long) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
        started = time.monotonic()
        post(http, CHAT, messages=user("Hi"), max_tokens=2, n=4)
        assert time.monotonic() - started < 20
        wait_for(lambda: running(server) == 0)


def running(server: Server) -> float:
    """What the gauge of requests says."""
    url = f"http://127.0.0.1:{server.settings.metrics_port}/metrics"
    lines = httpx.get(url).text.splitlines()
    found = [line for line in lines if line.startswith("trellis_requests_in_flight{")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.mark.promise("overload")
def test_more_than_fits_is_a_503_that_says_when_to_come_again(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = {"triton_max_batch_size": "1", "max_queue_size": "1"}
    body = {"model": MODEL, "messages": user("Hi"), "ignore_eos": True, "max_tokens": 200}
    with serve_demo(demo_engine, tmp_path, settings) as server:

        def one(_: int) -> httpx.Response:
            return httpx.post(f"{server.settings.url}{CHAT}", json=body, timeout=120)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(one, range(8)))
    refused = [each for each in answers if each.status_code == 503]
    assert refused
    assert all(each.status_code in (200, 503) for each in answers)
    for each in refused:
        assert each.headers["retry-after"] == "1"
        assert "overloaded" in each.json()["error"]["message"]


def test_an_id_is_in_the_header(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": user("Hi"), "max_tokens": 1}
    response = http.post(CHAT, json=body)
    assert json.loads(response.text)["id"] == f"chatcmpl-{response.headers['x-request-id']}"


def test_events_are_a_line_each_whatever_of_a_request_they_repeat(http: httpx.Client) -> None:
    ends = "a\n\ndata: [DONE]\n\n\r\u2028\u2029\u0085"
    more = {"instructions": ends, "user": ends, "metadata": {ends: ends}}
    made = events(http, RESPONSES, input=ends, max_output_tokens=1, **more)
    assert made[0]["response"]["metadata"] == made[-1]["response"]["metadata"] == {ends: ends}
