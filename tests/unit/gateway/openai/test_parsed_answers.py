"""Answers that are parsed: chunks add up to the whole, however tokens fall."""

import json
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.completion_usage import CompletionUsage
from openai.types.responses.response_usage import ResponseUsage

from support.byte_tokenizer import ByteTokenizer
from support.hypothesis_profiles import examples
from support.openai_api import joined, plain
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.chat_writer import ChatWriter
from trellis.gateway.openai.choices import Choice, Piece, Usage
from trellis.gateway.openai.parsing import Parsing
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_writer import ResponseWriter
from trellis.parsers import CallBegin, CallEnd, Reasoning, Setup, join_events
from trellis.parsers.registry import load
from trellis.pipeline.decode import Detokenizer

TOKENIZER = ByteTokenizer()
TEXTS = Detokenizer.of(TOKENIZER)
FORMAT = load("think+hermes")
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "안녕 <b>"}}\n</tool_call>'
TEXT = st.lists(
    st.sampled_from(
        [
            CALL,
            "<think>\nHm 🙂\n</think>\n\n",
            "<tool_call>",
            "</tool_call>",
            '{"name":',
            "\n",
            "So, ",
            CALL[:30],
        ]
    )
    | st.text(max_size=6),
    max_size=6,
).map("".join)
CUTS = st.lists(st.integers(0, 400), max_size=6)


def choice(constrained: bool, one_call: bool = False) -> Choice:
    parsing = Parsing(FORMAT, Setup(constrained=constrained))
    text = parsing.text(TEXTS, TOKENIZER, None)
    parser = parsing.parser()
    return Choice(
        0, text, TOKENIZER, [1], parser=parser, reasons=parsing.reasons, one_call=one_call
    )


def pieces(
    made: Choice, data: bytes, cuts: list[int], finish: str, log_probs: bool = False
) -> list[Piece]:
    ends = sorted({min(cut, len(data)) for cut in cuts})
    parts = [list(data[a:b]) for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    events: list[list[Any]] = [[1, ids, False, 0, {}] for ids in parts]
    events[-1][2:] = True, 0, {"finish_reason": finish}
    for event in events if log_probs else ():
        event[4]["output_log_probs"] = [-float(each) for each in event[1]]
    return [made.read(event) for event in events]


class NoUsage:
    def usage(self) -> Usage:
        return Usage()


def writer(include_reasoning: bool = True) -> ChatWriter:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    asked = ChatRequest.model_validate(
        {
            **body,
            "stream_options": {"include_usage": True},
            "include_reasoning": include_reasoning,
        }
    )
    return ChatWriter("chatcmpl-1", asked, cast(Any, NoUsage()))


@settings(max_examples=examples(400))
@given(TEXT, CUTS, st.booleans(), st.sampled_from(["stop", "length"]))
def test_a_chat_s_chunks_add_up_to_the_whole(
    text: str, cuts: list[int], constrained: bool, finish: str
) -> None:
    data = text.encode()
    made, at_once = choice(constrained), choice(constrained)
    writing = writer()
    sent = b"".join(writing.piece(made, each) for each in pieces(made, data, cuts, finish))
    sent += writing.end(Usage())
    *chunks, done = sent.decode().removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    (whole,) = pieces(at_once, data, [], finish)
    answer = json.loads(writer().whole([at_once], [whole], Usage()))
    assert joined([json.loads(each.removeprefix("data: ")) for each in chunks]) == plain(answer)
    called = bool(answer["choices"][0]["message"].get("tool_calls"))
    begun, ended = (sum(isinstance(e, kind) for e in whole.events) for kind in (CallBegin, CallEnd))
    expected = "tool_calls" if called and begun == ended and finish == "stop" else finish
    assert answer["choices"][0]["finish_reason"] == expected


@settings(max_examples=examples(400))
@given(TEXT, CUTS, st.booleans(), st.sampled_from(["stop", "length"]))
def test_an_answer_of_one_call_ends_behind_it_however_chunks_fall(
    text: str, cuts: list[int], log_probs: bool, finish: str
) -> None:
    """What an answer with all its calls has as far as the first one's end, and no more."""
    data = text.encode()
    every, made, at_once = choice(False), choice(False, True), choice(False, True)
    made.log_probs = at_once.log_probs = log_probs
    events = [each for piece in pieces(every, data, [], finish) for each in piece.events]
    ends = [at for at, each in enumerate(events) if isinstance(each, CallEnd)]
    first = join_events(events[: ends[0] + 1] if ends else events)

    told = pieces(made, data, cuts, finish, log_probs)
    (whole,) = pieces(at_once, data, [], finish, log_probs)
    streamed = Piece()
    for each in told:
        streamed.add(each)
    assert join_events(streamed.events) == whole.events == first
    assert streamed.text == whole.text
    assert streamed.log_probs == whole.log_probs
    assert streamed.finish == whole.finish
    assert [each.finish for each in told].count(None) == len(told) - 1, "it ends once"
    assert made.reasoning == at_once.reasoning
    if made.over:
        assert whole.finish == "tool_calls"


@settings(max_examples=examples(200))
@given(TEXT, CUTS)
def test_a_response_s_events_add_up_to_the_whole(text: str, cuts: list[int]) -> None:
    asked = ResponsesRequest(model="m", input="x")
    made, at_once = choice(False), choice(False)
    streamed, whole = ResponseWriter("1", asked), ResponseWriter("1", asked)
    for each in pieces(made, text.encode(), cuts, "stop"):
        streamed.piece(made, each)
    last = streamed.end(Usage()).decode().strip().rsplit("data: ", 1)[1]
    (piece,) = pieces(at_once, text.encode(), [], "stop")
    answer = json.loads(whole.whole([at_once], [piece], Usage()))
    assert without_ids(json.loads(last)["response"]["output"]) == without_ids(answer["output"])


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: item[name] for name in item if name != "call_id"} for item in items]


@settings(max_examples=examples(400))
@given(TEXT, CUTS, st.booleans())
def test_reasoning_tokens_are_those_of_the_thoughts_however_chunks_fall(
    text: str, cuts: list[int], log_probs: bool
) -> None:
    """A token is a byte here: as many as the thoughts have."""
    data = text.encode()
    made = choice(False)
    made.log_probs = log_probs
    told = pieces(made, data, cuts, "stop")
    thoughts = [each for piece in told for each in piece.events if isinstance(each, Reasoning)]
    assert made.reasoning == len("".join(each.text for each in thoughts).encode())
    at_once = choice(True)
    pieces(at_once, data, [], "stop")
    assert at_once.reasoning == made.reasoning


HARMONY = (
    "<|channel|>analysis<|message|>Hm 🙂<|end|><|start|>assistant<|channel|>commentary"
    ' to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
    "<|start|>assistant<|channel|>analysis<|message|>So.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Yes."
)


@given(CUTS)
def test_reasoning_tokens_are_counted_before_and_behind_a_call(cuts: list[int]) -> None:
    parsing = Parsing(load("harmony"), Setup("<|start|>assistant"))
    text = parsing.text(TEXTS, TOKENIZER, None)
    made = Choice(0, text, TOKENIZER, [1], parser=parsing.parser(), reasons=parsing.reasons)
    pieces(made, HARMONY.encode(), cuts, "stop")
    assert made.reasoning == len("Hm 🙂So.".encode())


def test_where_no_reasoning_is_told_from_text_none_is_counted() -> None:
    parsing = Parsing(load("hermes"), Setup())
    text = parsing.text(TEXTS, TOKENIZER, None)
    made = Choice(0, text, TOKENIZER, [1], parser=parsing.parser(), reasons=parsing.reasons)
    pieces(made, b"<think>Hm</think>", [], "stop")
    assert made.reasoning is None
    assert "completion_tokens_details" not in Usage(1, 2).as_json()


def test_reasoning_tokens_are_of_the_clients_types() -> None:
    chat = CompletionUsage.model_validate(Usage(5, 3, reasoning=2).as_json(), strict=True)
    assert chat.completion_tokens_details is not None
    assert chat.completion_tokens_details.reasoning_tokens == 2
    made = ResponseWriter("1", ResponsesRequest(model="m", input="x"))
    *_, last = made.end(Usage(5, 3, reasoning=2)).strip().split(b"data: ")
    usage = ResponseUsage.model_validate(json.loads(last)["response"]["usage"], strict=True)
    assert usage.output_tokens_details.reasoning_tokens == 2


def test_thoughts_are_left_out_where_they_are_not_wanted() -> None:
    made = choice(False)
    (piece,) = pieces(made, b"<think>\nHm.\n</think>\n\nYes.", [], "stop")
    for wanted, names in ((True, {"reasoning_content"}), (False, set[str]())):
        answer = json.loads(writer(wanted).whole([made], [piece], Usage()))
        message = answer["choices"][0]["message"]
        assert message["content"] == "Yes."
        assert set(message) - {"role", "content", "refusal"} == names
        chunk = writer(wanted).piece(made, piece)
        assert (b"Hm." in chunk) == wanted


@pytest.mark.parametrize(("skip", "text"), [(None, "a<think>b"), (False, "<end>a<think>b<end>")])
def test_of_special_tokens_a_parser_sees_its_own(skip: bool | None, text: str) -> None:
    class Special(ByteTokenizer):
        special_tokens = MappingProxyType({1: b"<think>", 2: b"<end>"})

    tokenizer = Special()
    made = Parsing(FORMAT, Setup()).text(Detokenizer.of(tokenizer), tokenizer, skip)
    assert made.add([2, ord("a"), 1, ord("b"), 2], ended=True) == text


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("cut", range(1, len(CALL.encode()) + 1))
def test_only_whole_calls_are_the_reason_of_an_end(constrained: bool, cut: int) -> None:
    """A stop string may fall into a call's arguments."""
    made = choice(constrained)
    (piece,) = pieces(made, CALL.encode()[:cut], [], "stop")
    whole = any(isinstance(event, CallEnd) for event in piece.events)
    assert piece.finish == ("tool_calls" if whole else "stop")
    assert whole or cut < len(CALL.encode())
