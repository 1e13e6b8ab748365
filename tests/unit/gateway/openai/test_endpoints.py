"""The endpoints on a repository as it is made; a script answers in the place of its engine."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.openai_api import user
from support.shown_config import model_of
from trellis.engine_files.engine_folder import EngineFolder
from trellis.gateway.access.accounts import Account, Allowance
from trellis.gateway.access.key_file import KeyLimits
from trellis.gateway.limits import Limits
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.models import Model
from trellis.gateway.openai.chat import ChatCompletions
from trellis.gateway.openai.completions import Completions
from trellis.gateway.openai.embeddings import Embeddings
from trellis.gateway.openai.endpoint import Endpoint
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.responses import Responses
from trellis.gateway.openai.tokenizing import Detokenize, Tokenize
from trellis.gateway.refusals import JSON, Refusal
from trellis.gateway.request_body import Bodies
from trellis.gateway.sending import ALLOWANCE
from trellis.gateway.step_channel import StepExchange
from trellis.repository.assemble import Plan, assemble
from trellis.repository.manifest import MadeModel
from trellis.repository.parser_formats import find_parser

MODEL = "ensemble"
WORDS = [22557, 1526, 28808]  # "Hello world!"
PROMPT = {"prompt": "Hi"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Model:
    """A Python engine's, whose step socket may be asked."""
    return new_model(tmp_path_factory.mktemp("endpoints"), llama_folder)


def new_model(folder: Path, llama_folder: Path, parser: str = "none") -> Model:
    (folder / "out").mkdir()
    engine = EngineFolder(folder / "out", "openvino", (), max_seq_len=99, vocab_size=32_000)
    target = folder / "repository"
    formats = find_parser(parser, llama_folder)
    assemble(Plan(engine, "llama", llama_folder, parser=formats), target)
    return model_of(target, MODEL, lambda _: True)


class Channel:
    """Answers each request with `words`, with log probabilities where those are asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.words = WORDS
        self.gone = False
        self.fails = False  # after the first words of a stream

    def open(self, body: bytes, content_type: bytes, meter: Any) -> StepExchange:
        asked = json.loads(body)
        self.asked.append(asked)
        exchange = StepExchange(len(self.asked), content_type)
        loop = asyncio.get_running_loop()
        outputs: dict[str, Any] = {"finish_reason": "length", "total_tokens": len(self.words)}
        if asked.get("return_log_probs"):
            outputs["output_log_probs"] = [-0.5] * len(self.words)
        if asked.get("prompt_log_probs"):
            ids = asked["input_ids"]
            outputs["prompt_log_probs"] = [None, *[[-1.0, []]] * (len(ids) - 1)]
        if asked.get("streaming") and not asked.get("return_log_probs"):
            loop.call_soon(exchange.take, [1, self.words[:2]])
            rest: list[Any] = [1, self.words[2:], True, 0, outputs]
            failure = [1, "the engine failed: out of memory", "INTERNAL"]
            loop.call_soon(exchange.take, failure if self.fails else rest)
        else:
            loop.call_soon(exchange.take, [1, self.words, True, 0, outputs])
        return exchange

    def close(self, exchange: StepExchange, complete: bool) -> None:
        assert complete


class Asked:
    """The state of a gateway with that model, and what an endpoint answers."""

    def __init__(self, model: Model) -> None:
        self.channel = Channel()
        self.allowance = Allowance()
        self._model = model
        self._encoders = ThreadPoolExecutor(1)

    def __call__(self, endpoint: type[Endpoint], **body: Any) -> Any:
        """JSON, or of a stream the data of its events. Raises OpenAIError."""
        return asyncio.run(self._ask(endpoint, json.dumps({"model": MODEL, **body}).encode()))

    async def _ask(self, endpoint: type[Endpoint], body: bytes) -> Any:
        async def channel(_: str) -> Channel | None:
            return None if self.channel.gone else self.channel

        async def find(_: str) -> Model:
            return self._model

        def made() -> dict[str, MadeModel]:
            return {MODEL: MadeModel(MODEL, 1)}

        async def no_context() -> int:
            return 0

        state: Any = SimpleNamespace(
            bodies=Bodies(1 << 20),
            limits=Limits(),
            settings=SimpleNamespace(log_prompts=False),
            registry=Registry(),
            encoders=self._encoders,
            upstreams=set(),
            counts=SimpleNamespace(add=lambda *_: None),
            steps=SimpleNamespace(find=channel),
            models=SimpleNamespace(made=made, find=find, largest_context=no_context),
        )
        sent: list[Any] = []
        messages: Iterator[Any] = iter([{"type": "http.request", "body": body}])

        async def receive() -> Any:
            for message in messages:
                return message
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"method": "POST", "path_params": {}}
        scope |= {"headers": [(b"content-type", JSON)], ALLOWANCE: self.allowance}
        await endpoint(state)(scope, receive, send)
        assert sent[0]["status"] == 200
        text = b"".join(each.get("body", b"") for each in sent[1:]).decode()
        if text.startswith("{"):
            return json.loads(text)
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.fixture
def ask(model: Model) -> Asked:
    return Asked(model)


def test_a_chat_whole_and_streamed(ask: Asked) -> None:
    whole = ask(ChatCompletions, messages=user("Hi"), max_tokens=3, n=2, seed=5, stop="x")
    assert [each["message"]["content"] for each in whole["choices"]] == ["Hello world!"] * 2
    assert whole["usage"]["completion_tokens"] == 6
    assert [asked["seed"] for asked in ask.channel.asked] == [5, 6]
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = ask(ChatCompletions, messages=user("Hi"), stream=True, stream_options=options)
    deltas = [each["choices"][0]["delta"] for each in chunks if each["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello world!"
    assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_an_answer_may_be_empty_unless_min_tokens_says_otherwise(ask: Asked) -> None:
    ask.channel.words = []
    for least in (None, 2):
        whole = ask(ChatCompletions, messages=user("Hi"), min_tokens=least)
        assert whole["choices"][0]["message"]["content"] == ""
        assert whole["usage"]["completion_tokens"] == 0
        (chunk,) = ask(ChatCompletions, messages=user("Hi"), min_tokens=least, stream=True)
        assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert chunk["choices"][0]["finish_reason"]
        assert {asked["min_tokens"] for asked in ask.channel.asked} == {least or 0}
        ask.channel.asked.clear()


def test_log_probabilities_and_biases(ask: Asked) -> None:
    more = {"logprobs": True, "top_logprobs": 2, "logit_bias": {"7": 1.5}, "priority": 3}
    for stream in (False, True):
        made = ask(ChatCompletions, messages=user("Hi"), stream=stream, **more)
        found = (made[-1] if stream else made)["choices"][0]["logprobs"]["content"]
        assert [each["logprob"] for each in found] == [-0.5] * 3
    asked = ask.channel.asked[0]
    assert (asked["bias_ids"], asked["top_log_probs"], asked["priority"]) == ([7], 2, 3)
    with pytest.raises(OpenAIError, match="logit_bias"):
        ask(ChatCompletions, messages=user("Hi"), logit_bias={"x": 1})


@pytest.mark.parametrize("prompt", ["Hi", [1, 5], ["Hi", "you"], [[1, 5], [1, 6]]])
def test_completions_of_each_kind_of_prompt(ask: Asked, prompt: Any) -> None:
    for stream in (False, True):
        more = {"echo": True, "logprobs": 0} if not stream else {"ignore_eos": True}
        made = ask(Completions, prompt=prompt, max_tokens=3, stream=stream, **more)
        choices = [each for chunk in made for each in chunk["choices"]] if stream else []
        texts = "".join(each["text"] for each in choices or made["choices"])
        assert texts.count("Hello world!") == len(ask.channel.asked) / (2 if stream else 1)


def test_the_echo_alone_makes_no_tokens(ask: Asked) -> None:
    made = ask(Completions, prompt="Hi", max_tokens=0, echo=True, logprobs=0)
    assert made["choices"][0]["text"] == "Hi"
    assert made["usage"]["completion_tokens"] == 0
    wrong: list[dict[str, Any]] = [
        {"max_tokens": 0},
        {"prompt": []},
        {"stream_options": {}},
        {"prompt": [10**6]},
    ]
    for body in wrong:
        with pytest.raises(OpenAIError):
            ask(Completions, **{"prompt": "Hi", **body})


def test_a_response_whole_and_streamed(ask: Asked) -> None:
    body = {"input": "Hi", "include": ["message.output_text.logprobs"]}
    whole = ask(Responses, **body)
    assert whole["output"][0]["content"][0]["text"] == "Hello world!"
    events = ask(Responses, **body, stream=True)
    assert events[-1]["response"]["output"][0]["content"] == whole["output"][0]["content"]
    assert "".join(each.get("delta", "") for each in events) == "Hello world!"


def test_an_engine_that_fails_ends_a_stream_in_the_form_of_its_endpoint(ask: Asked) -> None:
    ask.channel.fails = True
    message = "the engine failed: out of memory"
    for endpoint, body in ((ChatCompletions, {"messages": user("Hi")}), (Completions, PROMPT)):
        *chunks, last = ask(endpoint, **body, stream=True)
        assert chunks
        assert last["error"] == {
            "message": message,
            "type": "server_error",
            "param": None,
            "code": None,
        }
    *events, error, failed = ask(Responses, input="Hi", stream=True)
    assert "".join(each.get("delta", "") for each in events) == "Hello world"
    assert (error["type"], error["message"]) == ("error", message)
    assert failed["response"]["output"][0]["content"][0]["text"] == "Hello world"


LONGEST: list[tuple[type[Endpoint], dict[str, Any], str]] = [
    (Completions, PROMPT, "max_tokens"),
    (ChatCompletions, {"messages": user("Hi")}, "max_tokens"),
    (ChatCompletions, {"messages": user("Hi")}, "max_completion_tokens"),
    (Responses, {"input": "Hi"}, "max_output_tokens"),
]


@pytest.mark.parametrize(("endpoint", "body", "name"), LONGEST)
def test_the_field_that_was_sent_is_the_one_that_is_named(
    ask: Asked, endpoint: type[Endpoint], body: dict[str, Any], name: str
) -> None:
    with pytest.raises(OpenAIError) as caught:
        ask(endpoint, **body, **{name: 1000})
    assert caught.value.message == f"{name}: 1000 tokens; send at most 99 (max_tokens_limit)"
    assert caught.value.param == name
    ask.allowance = Allowance(Account("a", KeyLimits(tokens_per_minute=20)))
    with pytest.raises(OpenAIError) as caught:
        ask(endpoint, **body, **{name: 60})
    assert (caught.value.status, caught.value.param) == (400, name)
    assert caught.value.message.startswith(f"{name}: the request may take ")
    assert caught.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("prompts", "n", "message"),
    [
        (300, None, "prompt: 300 prompts; send at most 256 (sequences)"),
        (300, 1, "prompt: 300 prompts; send at most 256 (sequences)"),
        (3, 100, "n: 300 sequences with 3 prompts; send at most 256 (sequences)"),
    ],
)
def test_of_too_many_sequences_the_field_that_makes_them_is_named(
    ask: Asked, prompts: int, n: int | None, message: str
) -> None:
    with pytest.raises(OpenAIError) as caught:
        ask(Completions, prompt=["a"] * prompts, n=n)
    assert caught.value.message == message
    assert caught.value.param == message.partition(":")[0]


def test_what_an_engine_does_not_have_is_named_as_it_was_asked_for(
    ask: Asked, tmp_path: Path, llama_folder: Path
) -> None:
    made = new_model(tmp_path, llama_folder)
    made = replace(made, fields={**made.fields})
    del made.fields["return_log_probs"]
    wanted = {"include": ["message.output_text.logprobs"]}
    with pytest.raises(OpenAIError) as caught:
        Asked(made)(Responses, input="Hi", **wanted)
    assert caught.value.param == "include"
    assert caught.value.message == "include: this engine cannot do it; leave it out"
    ask.channel.gone = True
    with pytest.raises(OpenAIError) as caught:
        ask(Completions, **PROMPT, logprobs=2)
    assert caught.value.param == "logprobs"


def test_a_response_streams_with_the_options_that_there_are(ask: Asked) -> None:
    for options in ({}, {"include_obfuscation": False}, None):
        events = ask(Responses, input="Hi", stream=True, stream_options=options)
        assert events[-1]["response"]["usage"]["output_tokens"] == 3
    assert ask(Responses, input="Hi", stream_options=None)["output"]
    wrong: list[tuple[bool, Any, str]] = [
        (True, {"include_usage": True}, "stream_options.include_usage"),
        (True, {"include_obfuscation": 1}, "stream_options.include_obfuscation"),
        (True, [], "stream_options"),
        (False, {"include_obfuscation": False}, "stream_options"),
    ]
    for stream, options, param in wrong:
        with pytest.raises(OpenAIError) as caught:
            ask(Responses, input="Hi", stream=stream, stream_options=options)
        assert caught.value.param == param


def test_reasoning_tokens_are_counted_whole_and_streamed(
    tmp_path: Path, llama_folder: Path
) -> None:
    """As many where log probabilities are asked for. A mark counts that has a thought's space."""
    ask = Asked(new_model(tmp_path, llama_folder, "think"))
    made = ask(Tokenize, prompt="<think>", add_special_tokens=False)["tokens"]
    ends = ask(Tokenize, prompt="</think>", add_special_tokens=False)["tokens"]
    ask.channel.words = [*made, *WORDS, *ends, *WORDS[:2]]
    chat: dict[str, Any] = {"messages": user("Hi"), "stream_options": {"include_usage": True}}
    for more in ({}, {"logprobs": True}):
        whole = ask(ChatCompletions, messages=user("Hi"), **more)
        message = whole["choices"][0]["message"]
        assert message["reasoning_content"] == " Hello world! "
        assert message["content"] == " Hello world"
        last = ask(ChatCompletions, **chat, stream=True, **more)[-1]
        for usage in (whole["usage"], last["usage"]):
            assert usage["completion_tokens_details"] == {"reasoning_tokens": 4}
    whole = ask(Responses, input="Hi")
    last = ask(Responses, input="Hi", stream=True)[-1]["response"]
    for usage in (whole["usage"], last["usage"]):
        assert usage["output_tokens_details"] == {"reasoning_tokens": 4}
    with pytest.raises(OpenAIError, match="include"):
        ask(Responses, input="Hi", include=["message.output_text.logprobs"])


def test_texts_are_tokenized_and_back(ask: Asked) -> None:
    made = ask(Tokenize, prompt="Hello world!", return_token_strs=True)
    assert made["tokens"][1:] == WORDS
    assert ask(Detokenize, tokens=WORDS)["prompt"] == "Hello world!"
    assert ask(Detokenize, model=None, tokens=WORDS)["prompt"] == "Hello world!"
    assert ask(Tokenize, model=None, prompt="Hello world!")["tokens"] == made["tokens"]
    assert ask(Tokenize, messages=user("Hi"))["count"] > 3
    with pytest.raises(OpenAIError, match="prompt"):
        ask(Tokenize)
    with pytest.raises(OpenAIError, match="tokens"):
        ask(Detokenize, tokens=[10**6])


@pytest.mark.parametrize(
    ("sent", "name", "wish", "harmless"),
    [
        ("messages", "add_special_tokens", True, False),
        ("prompt", "add_generation_prompt", True, False),
        ("prompt", "continue_final_message", True, False),
        ("prompt", "chat_template_kwargs", {"enable_thinking": False}, {}),
        ("prompt", "tools", [{"type": "function", "function": {"name": "f"}}], []),
    ],
)
def test_what_only_the_other_kind_of_text_has_is_rejected_by_its_name(
    ask: Asked, sent: str, name: str, wish: Any, harmless: Any
) -> None:
    body = {sent: "Hi" if sent == "prompt" else user("Hi")}
    bare = ask(Tokenize, **body)
    for value in (None, harmless):
        assert ask(Tokenize, **body, **{name: value}) == bare
    with pytest.raises(OpenAIError) as caught:
        ask(Tokenize, **body, **{name: wish})
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


def test_a_prompt_that_is_too_long_and_embeddings_are_rejected(ask: Asked) -> None:
    with pytest.raises(OpenAIError) as caught:
        ask(Completions, prompt="word " * 300)
    assert caught.value.param == "prompt"
    with pytest.raises(OpenAIError, match="embeddings"):
        ask(Embeddings, input="x")


@pytest.mark.parametrize("limits", [{"tokens_per_minute": 60}, {"tokens_in_flight": 60}])
def test_an_answer_of_no_given_length_is_as_long_as_its_key_allows(
    ask: Asked, limits: dict[str, int]
) -> None:
    """The model holds 99 tokens. A length that is given is what it is."""
    account = Account("a", KeyLimits(**limits))
    with account.request() as ask.allowance:
        prompt = ask(ChatCompletions, messages=user("Hi"))["usage"]["prompt_tokens"]
    for endpoint, body, sequences in (
        (ChatCompletions, {"messages": user("Hi")}, 1),
        (ChatCompletions, {"messages": user("Hi"), "n": 2}, 2),
        (Responses, {"input": "Hi"}, 1),
    ):
        with Account("a", KeyLimits(**limits)).request() as ask.allowance:
            ask(endpoint, **body)
        assert ask.channel.asked[-1]["request_output_len"] == (60 - prompt) // sequences
    with account.request() as ask.allowance, pytest.raises(Refusal, match="max_tokens") as raised:
        ask(ChatCompletions, messages=user("Hi"), max_tokens=60)
    assert raised.value.status == 400
