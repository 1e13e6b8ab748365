"""For every release's contract: assembled, loaded by a real tritonserver, asked.

The engine is the stand-in of tests/support, which refuses a configuration or a request that
differs from the release's contract, and replays scripted tokens.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.fake_engines import slow_but_kinds
from support.standin import Script
from support.standin_server import Served, serve
from trellis.contract.release import Contract, read_contract
from trellis.grpc_client import input_types
from trellis.tokenizers import Tokenizer, load

TEXT = "안녕하세요 세계 😀 naïve"
PROMPT = "Say it in Korean"
SPECIALLY = "Say it specially"
BOS = 1


@pytest.fixture(scope="module")
def answer(llama: Tokenizer) -> list[int]:
    """The ids that the stand-in answers every prompt with: those of TEXT."""
    return llama.encode(TEXT)[1:]


@pytest.fixture(scope="module", params=slow_but_kinds())
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
    answer: list[int],
) -> Iterator[Served]:
    release: str = request.param
    folder = tmp_path_factory.mktemp(f"serve-{release}")
    scripts = [Script(prompt=llama_special(llama_folder), answer=[*answer[:5], BOS, *answer[5:]])]
    scripts.append(Script(answer=answer))
    guides = read_contract(release).input("guided_decoding_guide_type") is not None
    settings = {"guided_decoding_backend": "xgrammar"} if guides else {}
    with serve(release, folder, standin_library, llama_folder, scripts, settings) as running:
        yield running


def llama_special(folder: Path) -> list[int]:
    """The end of a prompt that is answered with a special token in the midst of the text."""
    return load("llama", folder).encode_fragment(" specially")


@pytest.fixture
def contract(served: Served) -> Contract:
    return read_contract(served.release)


def whole(served: Served, text: str = TEXT) -> str:
    """The text of an answer in one piece: 0.5.0 always has the prompt in front."""
    return f"{PROMPT} {text}" if served.release == "0.5.0" else text


def refused(served: Served, rows: int = 1, **values: Any) -> str:
    """The message of a request that is refused."""
    with pytest.raises(InferenceServerException) as error:
        served.ask([PROMPT] * rows, max_tokens=100, **values)
    return str(error.value.message()).removeprefix("in ensemble 'ensemble', ")


@pytest.mark.promise("releases")
def test_an_unstreamed_answer_is_the_text_and_a_stream_joins_to_it(served: Served) -> None:
    response = served.post(text_input=PROMPT, max_tokens=100)
    assert response.status_code == 200, response.text
    assert response.json()["text_output"] == whole(served)
    for _ in range(2):  # an id used again starts afresh
        chunks = served.text(PROMPT, "one-id", max_tokens=100, stream=True)
        assert len(chunks) > 10
        assert "".join(chunks) == TEXT
    assert served.text(PROMPT, "one-id", max_tokens=100) == [whole(served)]


def test_a_stream_without_an_id_is_one_exact_chunk(served: Served) -> None:
    assert served.text(PROMPT, max_tokens=100, stream=True) == [whole(served)]
    assert "has no id, and is answered in one piece" in served.log


@pytest.mark.promise("releases")
def test_sampling_inputs_arrive_under_the_names_of_the_release(
    served: Served, contract: Contract
) -> None:
    values: dict[str, Any] = {
        "top_k": 5,
        "top_p": 0.5,
        "temperature": 0.75,
        "repetition_penalty": 1.5,
    }
    values |= {"presence_penalty": 0.25, "min_length": 3, "random_seed": 2**40, "end_id": 7}
    served.text(PROMPT, max_tokens=100, **values)
    got = served.received()
    assert got["runtime_top_k"] == [5]
    assert got["runtime_top_p"] == [0.5]
    assert (got["temperature"], got["repetition_penalty"]) == ([0.75], [1.5])
    assert (got["presence_penalty"], got["end_id"]) == ([0.25], [7])
    newest = contract.input("seed") is not None
    assert got["seed" if newest else "random_seed"] == [2**40]
    assert got["min_tokens" if newest else "min_length"] == [3]
    assert got["request_output_len"] == [100]
    assert "beam_width" not in got  # only what was sent
    assert "streaming" not in got


def test_the_largest_seed_arrives_whole_beside_a_small_one(
    served: Served, contract: Contract
) -> None:
    seeds = [5, 2**64 - 1] if contract.has_output("batch_index") else [2**64 - 1]
    sent = [("seed", "UINT64", np.array(seeds, np.uint64).reshape(-1, 1))]
    served.ask_with([PROMPT] * len(seeds), sent, max_tokens=5)
    assert served.received()["seed" if contract.input("seed") else "random_seed"] == seeds


def test_a_temperature_of_zero_is_greedy(served: Served) -> None:
    served.text(PROMPT, max_tokens=100, temperature=0.0)
    got = served.received()
    assert got["runtime_top_k"] == [1]
    assert "temperature" not in got


def test_no_end_id_is_left_out_where_ids_are_unsigned(served: Served, contract: Contract) -> None:
    spec = contract.input("end_id")
    assert spec is not None
    served.text(PROMPT, max_tokens=100, end_id=-1)
    unsigned = spec.dtype == "TYPE_UINT32"
    assert served.received().get("end_id") == (None if unsigned else [-1])


def test_beams_come_as_texts_of_one_answer(
    served: Served, llama: Tokenizer, answer: list[int]
) -> None:
    (response,) = served.ask([PROMPT], max_tokens=100, beam_width=3, length_penalty=1.5)
    assert response["text_output"].shape == (3,)
    texts = [text.decode() for text in response["text_output"]]
    assert texts == [whole(served, llama.decode(answer[: len(answer) - b])) for b in range(3)]
    message = refused(served, beam_width=2, stream=True)
    assert message == "stream: a search over beams is not streamed; leave out stream or beam_width"
    assert refused(served, beam_width=5) == (
        "beam_width: 5 is more than this engine was built for, 4"
    )


def test_sequences_come_with_their_index(
    served: Served, contract: Contract, llama: Tokenizer, answer: list[int]
) -> None:
    if contract.input("num_return_sequences") is None:
        assert refused(served, num_return_sequences=3) == (
            f"num_return_sequences: this engine (TensorRT-LLM {served.release}) cannot do it;"
            " leave it out"
        )
        assert served.text(PROMPT, max_tokens=100, num_return_sequences=1) == [whole(served)]
        return
    expected = {index: llama.decode(answer[: len(answer) - index]) for index in range(3)}
    for stream in (False, True):
        texts: dict[int, str] = dict.fromkeys(expected, "")
        for part in served.ask(
            [PROMPT], "sequences", max_tokens=100, num_return_sequences=3, stream=stream
        ):
            texts[int(part["sequence_index"].item())] += part["text_output"].item().decode()
        assert texts == expected


def test_a_batch_is_answered_prompt_by_prompt_or_refused(
    served: Served, contract: Contract
) -> None:
    if not contract.has_output("batch_index"):
        assert refused(served, rows=2) == (
            f"text_input: this engine (TensorRT-LLM {served.release}) takes one prompt a request;"
            " send 2 requests"
        )
        return
    for stream in (False, True):
        texts = {0: "", 1: ""}
        for part in served.ask([PROMPT, "Another"], "batch", max_tokens=100, stream=stream):
            texts[int(part["batch_index"].item())] += part["text_output"].item().decode()
        assert texts == {0: TEXT, 1: TEXT}


def test_log_probabilities_pass_through(
    served: Served, contract: Contract, answer: list[int]
) -> None:
    if contract.input("return_log_probs") is None:
        assert "return_log_probs: this engine" in refused(served, return_log_probs=True)
        return
    (response,) = served.ask([PROMPT], max_tokens=100, return_log_probs=True)
    each = -(np.arange(len(answer)) + 1) / 1024
    assert np.allclose(response["output_log_probs"].reshape(-1), each)
    assert np.allclose(response["cum_log_probs"], each.sum())


def test_word_lists_arrive_as_ids(served: Served, contract: Contract, llama: Tokenizer) -> None:
    words: dict[str, Any] = {"stop_words": ["세계"], "bad_words": ["never", "no"]}
    if contract.input("stop_words_list") is None:
        assert refused(served, stop_words=["세계"]) == (
            "stop_words: this engine (TensorRT-LLM 0.5.0) cannot do it; leave it out"
        )
        assert served.text(PROMPT, max_tokens=100, stop_words=[""]) == [whole(served)]
        return
    (text,) = served.text(PROMPT, max_tokens=100, **words)
    assert text == TEXT[: TEXT.index("세계") + 2]  # the word itself stays, as in TensorRT-LLM
    got = served.received()
    for name, said in (("stop_words_list", ["세계"]), ("bad_words_list", ["never", "no"])):
        sequences = [ids for word in said for ids in llama.word_ids(word)]
        ends = np.cumsum([len(ids) for ids in sequences]).tolist()
        flat = [token for ids in sequences for token in ids]
        assert got[name] == flat + ends + [-1] * (len(flat) - len(ends))


def test_stop_token_ids_arrive_as_stop_words_of_one_id(
    served: Served, contract: Contract, llama: Tokenizer, answer: list[int]
) -> None:
    if contract.input("stop_words_list") is None:
        assert refused(served, stop_token_ids=[7]) == (
            "stop_token_ids: this engine (TensorRT-LLM 0.5.0) cannot do it; leave it out"
        )
        return
    (text,) = served.text(PROMPT, max_tokens=100, end_id=-1, stop_token_ids=[7, answer[5], 7])
    assert text == llama.decode(answer[:6])  # in the text, as a stop word is
    assert served.received()["stop_words_list"] == [7, answer[5], 1, 2]
    served.text(PROMPT, max_tokens=100, stop_token_ids=[7, 9], stop_words=["x y"], end_id=9)
    words = [*llama.word_ids("x y"), [7]]  # 9 ends it anyway
    ends = np.cumsum([len(ids) for ids in words]).tolist()
    flat = [token for ids in words for token in ids]
    got = served.received()
    assert got["stop_words_list"] == flat + ends + [-1] * (len(flat) - len(ends))
    assert got["end_id"] == [9]


def test_every_row_has_an_end_id_and_stop_token_ids_of_its_own(
    served: Served, contract: Contract
) -> None:
    if not contract.has_output("batch_index"):
        return
    sent = [
        ("end_id", "INT32", np.array([[7], [-1]], np.int32)),
        ("stop_token_ids", "INT32", np.array([[7, 9], [7, 8]], np.int32)),
    ]
    served.ask_with([PROMPT] * 2, sent, max_tokens=5)
    got = served.received()
    assert got["end_id"] == [7, -1]
    assert got["stop_words_list"] == [9, 0, 1, -1, 7, 8, 1, 2]


def test_special_tokens_are_shown_to_requests_that_ask_for_them(
    served: Served, llama: Tokenizer, answer: list[int]
) -> None:
    at = len(llama.decode(answer[:5]))
    shown = f"{TEXT[:at]}<s>{TEXT[at:]}"
    before = "<s> Say it specially " if served.release == "0.5.0" else ""
    for skip, text in ((False, shown), (True, TEXT), (None, TEXT), (False, shown)):
        values = {} if skip is None else {"skip_special_tokens": skip}
        (whole,) = served.text(SPECIALLY, "an id", max_tokens=100, **values)
        assert whole.removeprefix(before).endswith(text)
        assert ("<s>" in whole.removeprefix(before)) == (skip is False)
        chunks = served.text(SPECIALLY, "an id", max_tokens=100, stream=True, **values)
        assert len(chunks) > 10
        assert "".join(chunks) == text


def test_special_tokens_need_an_id_to_be_known_by(served: Served) -> None:
    message = refused(served, skip_special_tokens=False)
    assert message.startswith("skip_special_tokens: needs an id with this engine (TensorRT-LLM")
    assert served.text(PROMPT, max_tokens=100, skip_special_tokens=True) == [whole(served)]
    response = served.post(text_input=PROMPT, max_tokens=100, skip_special_tokens=False)
    assert response.status_code == 200  # over HTTP the gateway gives it one


def test_what_the_release_lacks_is_refused_by_name_unless_it_is_neutral(
    served: Served, contract: Contract
) -> None:
    tail = f"this engine (TensorRT-LLM {engine_version(served)}) cannot do it; leave it out"
    name = "frequency_penalty"
    if contract.input(name) is None:
        assert refused(served, frequency_penalty=1) == f"{name}: {tail}"
        assert served.text(PROMPT, max_tokens=100, frequency_penalty=0) == [whole(served)]
    else:
        assert served.text(PROMPT, max_tokens=100, frequency_penalty=1) == [whole(served)]
    assert refused(served, min_p=0.5) == f"min_p: {tail}"
    assert served.text(PROMPT, max_tokens=100, min_p=0) == [whole(served)]


def engine_version(served: Served) -> str:
    return "1.0.0" if served.release == "1.x" else served.release


def test_the_prompt_in_the_answer_is_a_matter_of_the_release(
    served: Served, contract: Contract
) -> None:
    if contract.input("exclude_input_in_output") is not None:
        (text,) = served.text(PROMPT, max_tokens=100, exclude_input_in_output=False)
        assert text == f"{PROMPT} {TEXT}"
        return
    fixed = served.release != "0.5.0"
    assert served.text(PROMPT, max_tokens=100, exclude_input_in_output=fixed) == [whole(served)]
    assert refused(served, exclude_input_in_output=not fixed) == (
        f"exclude_input_in_output: with this engine (TensorRT-LLM {served.release}) it is"
        f" {str(fixed).lower()} for every request; leave it out"
    )


@pytest.mark.parametrize("exclude", [False, True])
def test_a_stream_has_new_tokens_alone_whatever_is_said_of_the_prompt(
    served: Served, exclude: bool
) -> None:
    asked = {"max_tokens": 100, "stream": True, "exclude_input_in_output": exclude}
    chunks = served.text(PROMPT, "new tokens", **asked)
    assert len(chunks) > 10
    assert "".join(chunks) == TEXT


def test_the_oldest_releases_take_unsigned_integers(served: Served, contract: Contract) -> None:
    unsigned = contract.release in ("0.5.0", "0.6.1")
    names = ["max_tokens", "end_id", "pad_id", "top_k", "min_length", "beam_width"]
    types = input_types(served.client)
    assert {types[name] for name in names} == {"UINT32" if unsigned else "INT32"}
    values: dict[str, Any] = dict.fromkeys(names, 1) | {"max_tokens": 100, "end_id": 7}
    assert served.text(PROMPT, **values) == [whole(served)]  # as generate sends them
    response = served.post(text_input=PROMPT, **values)
    assert response.json()["text_output"] == whole(served), response.text


def test_the_cache_is_asked_about_under_the_name_of_the_release(
    served: Served, contract: Contract
) -> None:
    sent = [("return_kv_cache_reuse_stats", "BOOL", np.array([[True]]))]
    if contract.input("return_kv_cache_reuse_stats", "return_perf_metrics") is None:
        with pytest.raises(InferenceServerException, match="return_kv_cache_reuse_stats: this eng"):
            served.ask_with([PROMPT], sent, max_tokens=5)
        return
    (response,) = served.ask_with([PROMPT], sent, max_tokens=5)
    assert response["kv_cache_reused_blocks"].shape == (1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": 7.0}, "top_p: 7.0 is not allowed; send 0 to 1"),
        ({"temperature": -1.0}, "temperature: -1.0 is not allowed; send 0 (greedy) or more"),
        ({"seed": 1, "random_seed": 2}, "contradicts"),
        ({"min_tokens": 101}, "min_tokens: 101 is more than max_tokens, 100"),
        (
            {"length_penalty": 2.0},
            "length_penalty: only means something with beam_width above 1; leave it out",
        ),
    ],
)
def test_bad_values_are_refused_before_the_engine(
    served: Served, values: dict[str, Any], message: str
) -> None:
    assert message in refused(served, **values)


def test_a_request_beyond_the_context_is_refused(served: Served) -> None:
    with pytest.raises(InferenceServerException, match="do not fit in the 2560 tokens") as error:
        served.text(PROMPT, max_tokens=2560)
    assert "max_tokens: 2560 and a prompt of" in str(error.value.message())


def test_tables_go_to_the_engine_as_they_are(served: Served, contract: Contract) -> None:
    table = np.arange(8, dtype=np.float16).reshape(1, 2, 4)
    sent = [("prompt_embedding_table", "FP16", table)]
    sent += [("prompt_vocab_size", "INT32", np.array([[2]], np.int32))]
    if contract.input("prompt_embedding_table") is None:
        either = r"prompt_(embedding_table|vocab_size): this engine"  # whichever comes first
        with pytest.raises(InferenceServerException, match=either):
            served.ask_with([PROMPT], sent, max_tokens=5)
        return
    if contract.input("prompt_table_extra_ids") is not None:
        sent += [("prompt_table_extra_id", "UINT64", np.array([[9]], np.uint64))]
    served.ask_with([PROMPT], sent, max_tokens=5)
    got = served.received()
    assert got["prompt_embedding_table"] == list(range(8))
    assert got["prompt_vocab_size"] == [2]
    if contract.input("prompt_table_extra_ids") is not None:  # an id a token, none for text
        assert got["prompt_table_extra_ids"] == [0] * len(got["input_ids"])


def test_lists_of_lists_over_http_are_the_tensor_that_they_show(
    served: Served, contract: Contract
) -> None:
    if contract.input("lora_config") is None:
        pytest.skip(f"TensorRT-LLM {served.release} has no lora_config")
    rows = [[1, 2, 3], [4, 5, 6]]
    for sent in (rows, [rows], [1, 2, 3, 4, 5, 6]):
        answer = served.post(text_input=PROMPT, max_tokens=5, lora_config=sent)
        assert answer.status_code == 200, answer.text
        assert served.received()["lora_config"] == [1, 2, 3, 4, 5, 6]
    answer = served.post(text_input=PROMPT, max_tokens=5, lora_config=[[1, 2, 3], [4, 5]])
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("lora_config: the lists in it are not of 3 values")


def test_guided_decoding_goes_to_the_engine_or_is_refused(
    served: Served, contract: Contract
) -> None:
    pair = {"guided_decoding_guide_type": b"regex", "guided_decoding_guide": b"[0-9]+"}
    sent = [(name, "BYTES", np.array([[value]], np.object_)) for name, value in pair.items()]
    if contract.input("guided_decoding_guide_type") is None:
        with pytest.raises(InferenceServerException, match=r"guided_decoding_guide(_type)?: this"):
            served.ask_with([PROMPT], sent, max_tokens=5)
        return
    served.ask_with([PROMPT], sent, max_tokens=5)
    got = served.received()
    assert got["guided_decoding_guide_type"] == ["ebnf_grammar"]
    assert got["guided_decoding_guide"] == ["root ::= [0-9]+\n"]


COUNTS = {"return_num_input_tokens": True, "return_num_output_tokens": True}


def test_tokens_are_counted_of_each_response(
    served: Served, llama: Tokenizer, answer: list[int]
) -> None:
    prompt = len(llama.encode(PROMPT))
    (response,) = served.ask([PROMPT], "counted", max_tokens=100, **COUNTS)
    assert counts(response) == [(prompt, len(answer))]
    assert response["num_output_tokens"].dtype == np.int32
    chunks = served.ask([PROMPT], "counted", max_tokens=100, stream=True, **COUNTS)
    assert len(chunks) > 10
    found = [count for chunk in chunks for count in counts(chunk)]
    assert {count[0] for count in found} == {prompt}
    assert sum(count[1] for count in found) == len(answer)
    (response,) = served.ask([PROMPT], "counted", max_tokens=100)
    assert not response.keys() & {"num_input_tokens", "num_output_tokens", "finish_reason"}


def test_tokens_are_counted_over_http_as_over_grpc(
    served: Served, llama: Tokenizer, answer: list[int]
) -> None:
    response = served.post(text_input=PROMPT, max_tokens=100, **COUNTS)
    assert response.status_code == 200, response.text
    said = response.json()
    found = (said["num_input_tokens"], said["num_output_tokens"])
    assert found == (len(llama.encode(PROMPT)), len(answer))
    assert said["text_output"] == whole(served)


def counts(response: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """What a response says of input and output tokens, of each row."""
    both = (response["num_input_tokens"], response["num_output_tokens"])
    assert [array.shape for array in both] == [(1, 1), (1, 1)]
    return list(zip(*(array.reshape(-1).tolist() for array in both), strict=True))


def test_a_whole_answer_says_why_it_ended(served: Served, answer: list[int]) -> None:
    for most, reason in ((100, b"stop"), (len(answer), b"length"), (3, b"length")):
        asked = {"max_tokens": most, "return_finish_reason": True}
        (response,) = served.ask([PROMPT], "why", **asked)
        assert response["finish_reason"].tolist() == [[reason]]
        said = served.post(text_input=PROMPT, **asked)
        assert said.json()["finish_reason"] == reason.decode(), said.text
    (response,) = served.ask([PROMPT], max_tokens=100, return_finish_reason=False)
    assert "finish_reason" not in response


def test_a_stream_without_its_last_chunk_known_has_no_finish_reason(served: Served) -> None:
    message = refused(served, return_finish_reason=True, stream=True)
    assert message == (
        f"return_finish_reason: this engine (TensorRT-LLM {engine_version(served)}) does not say"
        " which chunk of a stream is its last; leave out stream or return_finish_reason"
    )


def test_what_is_counted_beside_the_engine_needs_an_id(served: Served, contract: Contract) -> None:
    for name in (*COUNTS, "return_finish_reason"):
        if contract.input(name) is None:
            assert refused(served, **{name: True}).startswith(
                f"{name}: needs an id with this engine (TensorRT-LLM {engine_version(served)});"
            )


def test_a_stop_without_an_id_is_refused_before_the_engine(served: Served) -> None:
    assert refused(served, stop=True).startswith("stop: needs the id of the request to end; send")
    response = served.post(stop=True)
    assert response.status_code == 400, response.text
    assert response.json()["error"].startswith('stop: needs the "id" of the request to end; send')


def test_logits_and_counts_come_from_the_releases_that_have_them(
    served: Served, contract: Contract
) -> None:
    flags = {
        "return_context_logits": "context_logits",
        "return_num_input_tokens": "num_input_tokens",
    }
    for flag, output in flags.items():
        if contract.input(flag) is not None:
            sent = [(flag, "BOOL", np.array([[True]]))]
            (response,) = served.ask_with([PROMPT], sent, max_tokens=5)
            assert response[output].size > 0


def test_a_stop_of_an_id_that_nobody_has_is_answered_with_an_empty_text(served: Served) -> None:
    response = served.post(id="nobody", stop=True)
    assert response.status_code == 200, response.text
    assert response.json()["text_output"] == ""


def test_preprocessing_gives_what_a_decoder_would_be_sent_from_0_11_on(
    served: Served, contract: Contract
) -> None:
    query = triton.InferInput("QUERY", [1, 1], "BYTES")
    query.set_data_from_numpy(np.array([[PROMPT.encode()]], np.object_))
    unsigned = input_types(served.client)["max_tokens"] == "UINT32"
    length = triton.InferInput("REQUEST_OUTPUT_LEN", [1, 1], "UINT32" if unsigned else "INT32")
    length.set_data_from_numpy(np.array([[5]], np.uint32 if unsigned else np.int32))
    given = served.client.infer("preprocessing", [query, length])
    ids = given.as_numpy("DECODER_INPUT_ID")
    if contract.input("decoder_input_ids") is None:
        assert ids is None
        return
    assert (ids.dtype, ids.shape) == (np.int32, (1, 1))
    assert given.as_numpy("REQUEST_DECODER_INPUT_LEN").tolist() == [[1]]
