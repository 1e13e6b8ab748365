"""The stand-in backend behind a real tritonserver: loads, refusals, tokens, streams, log."""

import itertools
import queue
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException as Failure

from support.standin import Script, read_journal, write_contract, write_scripts
from system.standin.conftest import CONTRACTS, Server, contract

RELEASES = ["0.5.0", "0.9.0", "1.x"]
PROMPT = [5, 6, 7]
TIMEOUT = 30.0

Values = Any


@dataclass
class Chunk:
    """One response: its tensors, and whether Triton said it was the request's last."""

    tensors: dict[str, Any]
    final: bool

    def ids(self) -> list[list[int]]:
        rows: list[list[int]] = self.tensors["output_ids"][0].tolist()
        return rows


class Model:
    """A loaded model and a stream to it; inputs are typed and shaped by its contract."""

    def __init__(self, server: Server, name: str, release: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.specs = {tensor["name"]: tensor for tensor in contract(release)["inputs"]}
        self.answers: queue.Queue[tuple[triton.InferResult, Failure | None]] = queue.Queue()
        self.client = triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, inputs: Mapping[str, Values], id: str = "", **options: Any) -> None:
        tensors = [self.tensor(name, values) for name, values in inputs.items()]
        self.client.async_stream_infer(
            self.name, tensors, request_id=id, enable_empty_final_response=True, **options
        )

    def tensor(self, name: str, values: Values) -> triton.InferInput:
        kind = self.specs[name]["dtype"].removeprefix("TYPE_")
        names = {"BOOL": "bool", "FP16": "float16", "FP32": "float32"}
        array = np.asarray(values, names.get(kind, kind.lower()))
        if array.ndim == 1:
            array = array[:, None]
        tensor = triton.InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array)
        return tensor

    def receive(self) -> Chunk:
        result, error = self.answers.get(timeout=TIMEOUT)
        if error is not None:
            raise error
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        return Chunk({out.name: result.as_numpy(out.name) for out in response.outputs}, final)

    def ask(self, inputs: Mapping[str, Values], id: str = "", **options: Any) -> list[Chunk]:
        """Every response to one request, the last one being the final one."""
        self.send(inputs, id, **options)
        chunks = [self.receive()]
        while not chunks[-1].final:
            chunks.append(self.receive())
        return chunks

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in read_journal(self.log) if line["event"] == event]

    def wait_for_end(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if ends := self.events("end"):
                return ends[-1]
            time.sleep(0.01)
        raise TimeoutError("the stand-in logged no end")


def question(length: int = 4, *, rows: int = 1, **more: Values) -> dict[str, Values]:
    """Inputs of a request for `length` tokens: `rows` times PROMPT, and `more`, one value a row."""
    inputs = {
        "input_ids": [PROMPT] * rows,
        "input_lengths": [len(PROMPT)] * rows,
        "request_output_len": [length] * rows,
    }
    return inputs | {name: [value] * rows for name, value in more.items()}


def words(*sequences: list[int]) -> list[list[int]]:
    """Word list as TensorRT-LLM has it: `[1, 2], [3]` -> `[[1, 2, 3], [2, 3, -1]]`."""
    ids = [id for sequence in sequences for id in sequence]
    ends = np.cumsum([len(sequence) for sequence in sequences]).tolist()
    return [ids, ends + [-1] * (len(ids) - len(ends))]


class Maker:
    """Loads models for one test and closes their streams after it."""

    def __init__(self, server: Server, folder: Path, prefix: str) -> None:
        self.server, self.folder, self.prefix = server, folder, prefix
        self.models: list[Model] = []

    def __call__(self, release: str = "1.x", *, decoupled: bool = True, **parameters: str) -> Model:
        log = self.folder / f"log{len(self.models)}"
        checked = write_contract(self.folder / release, contract(release))
        parameters = {f"standin_{key}": value for key, value in parameters.items()}
        # "own_" is for the release's own parameters: standin_own_x -> x.
        parameters = {key.removeprefix("standin_own_"): v for key, v in parameters.items()}
        parameters |= {"standin_log": str(log), "standin_contract": str(checked)}
        name = f"{self.prefix}_{len(self.models)}"
        self.server.load(name, contract(release), parameters, decoupled=decoupled)
        self.models.append(Model(self.server, name, release, log))
        return self.models[-1]


@pytest.fixture
def make(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Maker]:
    prefix = re.sub(r"\W", "_", request.node.name)
    maker = Maker(server, tmp_path, prefix)
    yield maker
    for model in maker.models:
        model.client.stop_stream(cancel_requests=True)
        model.client.close()
        server.client.unload_model(model.name)


# At load


def test_it_says_in_the_log_that_it_is_no_tensorrt_llm(make: Maker, server: Server) -> None:
    model = make()
    assert "STAND-IN" in server.log
    assert f"model '{model.name}' is answered by the stand-in" in server.log


def changed(release: str, kind: str, name: str, change: dict[str, Any]) -> dict[str, Any]:
    """A contract with one tensor changed; `drop=True` takes it out."""
    model = contract(release)
    drop = "drop" in change
    tensors = [
        tensor | change if tensor["name"] == name else tensor
        for tensor in model[kind]
        if not (drop and tensor["name"] == name)
    ]
    return model | {kind: tensors}


WRONG_MODELS: dict[str, tuple[tuple[str, str, dict[str, Any]], str]] = {
    "missing input": (("inputs", "seed", {"drop": True}), "input 'seed' is missing"),
    "missing output": (("outputs", "batch_index", {"drop": True}), "'batch_index' is missing"),
    "renamed": (("inputs", "seed", {"name": "random_seed"}), "'seed' is missing"),
    "type": (("inputs", "end_id", {"dtype": "TYPE_UINT32"}), "'end_id' has data_type TYPE_UINT32"),
    "dims": (("inputs", "stop_words_list", {"dims": [1, -1]}), "has dims [1,-1]; this release"),
    "reshape": (("inputs", "end_id", {"reshape": [1]}), "'end_id' has reshape [1]"),
    "optional": (("inputs", "end_id", {"optional": False}), "'end_id' has presence required"),
    "ragged": (("inputs", "input_ids", {"allow_ragged_batch": False}), "has batch uniform"),
}


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_a_tensor_that_differs_from_the_contract_fails_the_load(
    server: Server, tmp_path: Path, case: str
) -> None:
    (kind, name, change), message = WRONG_MODELS[case]
    checked = write_contract(tmp_path / "contract", contract("1.x"))
    with pytest.raises(Failure, match=re.escape(message)):
        server.load(
            "wrong_" + case.replace(" ", "_"),
            changed("1.x", kind, name, change),
            {"standin_contract": str(checked)},
        )


def test_a_tensor_of_another_release_fails_the_load(server: Server, tmp_path: Path) -> None:
    checked = write_contract(tmp_path / "contract", contract("0.9.0"))
    model = contract("0.9.0")
    model["inputs"] = model["inputs"] + [{"name": "seed", "dtype": "TYPE_UINT64", "dims": [1]}]
    with pytest.raises(Failure, match="input 'seed' is not one this release has"):
        server.load("extra", model, {"standin_contract": str(checked)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gpt_model_pth", "/x", "parameter 'gpt_model_pth' is not one this release has"),
        ("gpt_model_path", "${engine_dir}", "parameter 'gpt_model_path' still holds a placeholder"),
        ("max_beam_width", "two", "parameter 'max_beam_width' is 'two'"),
        ("exclude_input_in_output", "maybe", "must be true or false"),
        ("standin_colour", "red", "'standin_colour' is not one the stand-in has"),
        ("standin_tokens", "/nowhere", "cannot read the script /nowhere"),
    ],
)
def test_a_wrong_parameter_fails_the_load(
    server: Server, tmp_path: Path, key: str, value: str, message: str
) -> None:
    checked = write_contract(tmp_path / "contract", contract("0.9.0"))
    with pytest.raises(Failure, match=re.escape(message)):
        server.load(
            f"parameter_{key}", contract("0.9.0"), {"standin_contract": str(checked), key: value}
        )


@pytest.mark.parametrize("release", sorted(path.stem for path in CONTRACTS.glob("*.json")))
def test_every_release_loads_by_its_contract_and_answers(make: Maker, release: str) -> None:
    assert make(release).ask(question(2))[0].ids() == [[5, 6, 7, 5, 6]]


# Tokens


@pytest.mark.parametrize("release", RELEASES)
def test_a_stream_brings_one_new_token_at_a_time(make: Maker, release: str) -> None:
    chunks = make(release).ask(question(5, streaming=True))
    assert [chunk.ids() for chunk in chunks] == [[[5]], [[6]], [[7]], [[5]], [[6]]]
    assert [chunk.final for chunk in chunks] == [False] * 4 + [True]


@pytest.mark.parametrize("release", RELEASES)
def test_an_unstreamed_answer_has_the_prompt_in_front(make: Maker, release: str) -> None:
    (chunk,) = make(release).ask(question(2))
    assert chunk.ids() == [[5, 6, 7, 5, 6]]
    if release != "0.5.0":
        assert chunk.tensors["sequence_length"].tolist() == [[5]]


@pytest.mark.parametrize("release", ["0.9.0", "1.x"])
def test_the_prompt_can_be_left_out(make: Maker, release: str) -> None:
    model = make(release, own_exclude_input_in_output="true")
    assert model.ask(question(2))[0].ids() == [[5, 6]]


def test_the_request_overrides_whether_the_prompt_is_left_out(make: Maker) -> None:
    model = make("1.x", own_exclude_input_in_output="true")
    (chunk,) = model.ask(question(1, exclude_input_in_output=False))
    assert chunk.ids() == [[5, 6, 7, 5]]


@pytest.mark.parametrize("release", RELEASES)
def test_a_model_that_is_not_decoupled_answers_once(
    make: Maker, server: Server, release: str
) -> None:
    model = make(release, decoupled=False)
    tensors = [model.tensor(name, values) for name, values in question(3).items()]
    result = server.client.infer(model.name, tensors)
    assert result.as_numpy("output_ids").tolist() == [[[5, 6, 7, 5, 6, 7]]]


def test_scripts_choose_by_the_end_of_the_prompt(make: Maker, tmp_path: Path) -> None:
    korean = "안녕 🦙".encode()
    scripts = [Script(prompt=[6, 7], answer=[*korean]), Script(answer=[1])]
    model = make(tokens=str(write_scripts(tmp_path / "tokens", scripts)))
    chunks = model.ask(question(100, streaming=True))
    assert bytes(id for chunk in chunks for id in chunk.ids()[0]).decode() == "안녕 🦙"
    other = question(100, streaming=True) | {"input_ids": [[6, 7, 8]]}
    assert [chunk.ids()[0] for chunk in model.ask(other)] == [[1], []]


def test_a_stream_ended_by_end_id_closes_with_no_tokens(make: Maker) -> None:
    model = make(end_after="2")
    chunks = model.ask(question(9, streaming=True, end_id=2))
    assert [chunk.ids()[0] for chunk in chunks] == [[5], [6], []]
    assert model.ask(question(9, end_id=7))[0].ids() == [[5, 6, 7, 5, 6]]
    assert model.events("end")[-1]["reason"] == "end_id"


def test_end_id_can_be_among_the_tokens(make: Maker) -> None:
    model = make(end_after="1", include_end_id="true")
    chunks = model.ask(question(9, streaming=True, end_id=2))
    assert [chunk.ids()[0] for chunk in chunks] == [[5], [2]]


def test_a_stop_word_ends_the_answer_and_stays_in_it(make: Maker) -> None:
    model = make()
    chunks = model.ask(question(9, streaming=True, stop_words_list=words([6, 6], [7, 5])))
    assert [chunk.ids()[0] for chunk in chunks] == [[5], [6], [7], [5]]
    assert model.wait_for_end() == {"event": "end", "id": "", "reason": "stop_words", "tokens": 4}


def test_a_script_can_fail_in_mid_stream(make: Maker, tmp_path: Path) -> None:
    tokens = write_scripts(tmp_path / "tokens", [Script(answer=[1], failure="out of memory")])
    model = make(tokens=str(tokens))
    model.send(question(9, streaming=True))
    assert model.receive().ids() == [[1]]
    with pytest.raises(Failure, match="out of memory"):
        model.receive()


def test_responses_can_carry_several_tokens(make: Maker) -> None:
    chunks = make(tokens_per_response="3").ask(question(7, streaming=True))
    assert [chunk.ids()[0] for chunk in chunks] == [[5, 6, 7], [5, 6, 7], [5]]


def test_tokens_can_take_time(make: Maker) -> None:
    model = make(token_delay_us="20000")
    start = time.monotonic()
    assert len(model.ask(question(10, streaming=True))) == 10
    assert 0.2 <= time.monotonic() - start < 5


def test_a_delay_can_come_with_the_id(make: Maker) -> None:
    model = make(delay_from_id="true")
    model.send(question(5, streaming=True), "slow@200000")
    model.send(question(50, streaming=True), "fast@0")
    assert [model.receive().ids() for _ in range(50)][-1] == [[6]]  # token 50: all of the fast one
    start = time.monotonic()
    rest = [model.receive() for _ in range(5)]
    assert [chunk.ids() for chunk in rest] == [[[PROMPT[at % 3]]] for at in range(5)]
    assert 0.7 <= time.monotonic() - start < 5


def test_in_steps_streams_send_together(make: Maker) -> None:
    model = make(token_delay_us="250000", steps="true")
    model.send(question(3, streaming=True), "first")
    time.sleep(0.1)  # a stream without steps would stay that far behind
    model.send(question(3, streaming=True), "second")
    arrived = []
    for _ in range(6):
        model.receive()
        arrived.append(time.monotonic())
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(arrived))
    assert gaps[-2] > 0.15  # two waits of a step
    assert gaps[1] < 0.08  # and, but for what the first had alone, two chunks a step


# Shapes


@pytest.mark.parametrize("release", ["0.9.0", "1.x"])
def test_beams_come_as_rows_padded_with_minus_one(make: Maker, release: str) -> None:
    model = make(release, own_exclude_input_in_output="true")
    (chunk,) = model.ask(question(4, beam_width=3, return_log_probs=True))
    assert chunk.ids() == [[5, 6, 7, 5], [5, 6, 7, -1], [5, 6, -1, -1]]
    assert chunk.tensors["sequence_length"].tolist() == [[4, 3, 2]]
    assert (1024 * chunk.tensors["cum_log_probs"]).tolist() == [[-10, -6, -3]]
    assert chunk.tensors["output_log_probs"].shape == (1, 3, 4)


def test_a_batch_is_split_and_the_final_flag_comes_last(make: Maker) -> None:
    model = make("1.x")
    inputs = question(2, rows=2, streaming=True)
    inputs |= {"input_ids": [[1, 2, 9], [3, 9, 9]], "input_lengths": [2, 1]}
    chunks = model.ask(inputs)
    places = [chunk.tensors["batch_index"].item() for chunk in chunks]
    ids = [chunk.ids()[0] for chunk in chunks]
    assert list(zip(places, ids, strict=True)) == [(0, [1]), (1, [3]), (0, [2]), (1, [3])]
    assert [chunk.final for chunk in chunks] == [False, False, False, True]


def test_return_sequences_are_responses_with_an_index(make: Maker) -> None:
    model = make("1.x", own_exclude_input_in_output="true")
    chunks = model.ask(question(4, num_return_sequences=3))
    assert [chunk.tensors["sequence_index"].item() for chunk in chunks] == [0, 1, 2]
    assert [chunk.ids()[0] for chunk in chunks] == [[5, 6, 7, 5], [5, 6, 7], [5, 6]]


def test_streamed_log_probabilities_are_of_the_new_tokens(make: Maker) -> None:
    chunks = make("1.x").ask(question(3, streaming=True, return_log_probs=True))
    each = [1024 * chunk.tensors["output_log_probs"].item() for chunk in chunks]
    sums = [1024 * chunk.tensors["cum_log_probs"].item() for chunk in chunks]
    assert (each, sums) == ([-1, -2, -3], [-1, -3, -6])


def test_what_nobody_asked_for_is_a_zero_before_0_14_and_absent_after(make: Maker) -> None:
    (old,) = make("0.9.0").ask(question(1))
    assert {name: array.shape for name, array in old.tensors.items()} == {
        "output_ids": (1, 1, 4),
        "sequence_length": (1, 1),
        "cum_log_probs": (1, 1),
        "output_log_probs": (1, 1, 1),
        "context_logits": (1, 1, 1),
        "generation_logits": (1, 1, 1, 1),
    }
    (new,) = make("1.x").ask(question(1))
    assert set(new.tensors) == {"output_ids", "sequence_length"}


def test_logits_counts_and_measurements_come_when_asked_for(make: Maker) -> None:
    asked = ["context_logits", "generation_logits", "num_input_tokens", "num_output_tokens"]
    flags = {f"return_{name}": True for name in [*asked, "perf_metrics"]}
    (chunk,) = make("1.x", vocab_size="16").ask(question(2, **flags))
    assert chunk.tensors["context_logits"].shape == (1, 3, 16)
    assert chunk.tensors["generation_logits"].shape == (1, 1, 2, 16)
    assert chunk.tensors["num_input_tokens"].tolist() == [[3]]
    assert chunk.tensors["kv_cache_reused_blocks"].tolist() == [[0]]
    assert chunk.tensors["first_token_time_ns"].dtype == np.int64


def test_stream_keys_pass_through_and_the_last_response_says_so(server: Server) -> None:
    model = contract("1.x")
    key = {"name": "stream_key", "dtype": "TYPE_UINT64", "dims": [1]}
    end = {"name": "stream_end", "dtype": "TYPE_BOOL", "dims": [1]}
    model["inputs"] += [key | {"optional": True}]
    model["outputs"] += [key, end]
    server.load("keys", model)
    keyed = Model(server, "keys", "1.x", Path("/dev/null"))
    keyed.specs["stream_key"] = key
    chunks = keyed.ask(question(2, streaming=True, stream_key=2**64 - 1))
    keyed.client.close()
    assert [chunk.tensors["stream_key"].tolist() for chunk in chunks] == [[[2**64 - 1]]] * 2
    assert [chunk.tensors["stream_end"].tolist() for chunk in chunks] == [[[False]], [[True]]]


# Ends before the end


@pytest.mark.parametrize("release", RELEASES)
def test_a_stop_request_ends_the_stream_of_its_id(make: Maker, release: str) -> None:
    model = make(release, token_delay_us="5000")
    model.send(question(100_000, streaming=True), "long")
    assert model.receive().ids() == [[5]]
    model.send(question(1, stop=True), "long")
    last: list[Chunk] = []
    while len(last) < 2:
        chunk = model.receive()
        last += [chunk] if chunk.final else []
    with_ids = [chunk for chunk in last if chunk.tensors]
    assert [chunk.ids() for chunk in with_ids] == [[[]]]
    assert model.wait_for_end()["reason"] == "cancelled"


def test_a_stop_request_needs_an_id(make: Maker) -> None:
    with pytest.raises(Failure, match="needs the id"):
        make().ask(question(1, stop=True))


def test_a_client_that_goes_ends_its_request(make: Maker) -> None:
    model = make(token_delay_us="5000")
    model.send(question(100_000, streaming=True))
    model.receive()
    model.client.stop_stream(cancel_requests=True)
    assert model.wait_for_end()["reason"] == "cancelled"


def test_unloading_waits_for_what_runs(make: Maker, server: Server) -> None:
    model = make(token_delay_us="1000")
    model.send(question(200, streaming=True))
    model.receive()
    server.client.unload_model(model.name)
    while not model.receive().final:
        pass


# What it is given


WRONG_REQUESTS: dict[str, tuple[dict[str, Values], str]] = {
    "length": (question(0), "'request_output_len' is 0"),
    "prompt": (question(1) | {"input_lengths": [4]}, "'input_lengths' is 4 in row 0"),
    "beams": (question(1, beam_width=9), "beam_width' is 9; max_beam_width is 4"),
    "beams streamed": (question(1, beam_width=2, streaming=True), "a stream has one beam"),
    "sequences": (question(1, beam_width=2, num_return_sequences=3), "is 3; beam_width is 2"),
    "word past the end": (question(1, stop_words_list=[[1, 2], [3, -1]]), "past its end: 3"),
    "words that fall": (question(1, bad_words_list=[[1, 2], [2, 1]]), "do not rise: 1 after 2"),
}


@pytest.mark.parametrize("case", WRONG_REQUESTS)
def test_a_wrong_request_is_refused_by_name_and_alone(make: Maker, case: str) -> None:
    inputs, message = WRONG_REQUESTS[case]
    model = make("1.x", own_max_beam_width="4")
    with pytest.raises(Failure, match=re.escape(message)):
        model.ask(inputs)
    assert model.ask(question(1))[0].ids() == [[5, 6, 7, 5]]


@pytest.mark.parametrize("more", [{"streaming": True}, {"rows": 2}, {"num_return_sequences": 2}])
def test_what_needs_a_decoupled_model_is_refused_without(
    make: Maker, more: dict[str, Values]
) -> None:
    with pytest.raises(Failure, match="needs a decoupled model"):
        make(decoupled=False).ask(question(1, **more))


def test_an_input_of_the_wrong_type_is_refused(make: Maker) -> None:
    model = make("0.5.0")
    model.specs["request_output_len"] = {"dtype": "TYPE_INT32", "dims": [1]}
    with pytest.raises(Failure, match="request_output_len"):
        model.ask(question(1))


def test_from_0_14_the_sequence_length_must_be_asked_for(make: Maker) -> None:
    model = make("1.x")
    with pytest.raises(Failure, match="'sequence_length' must be asked for"):
        model.ask(question(1), outputs=[triton.InferRequestedOutput("output_ids")])


def test_the_log_has_every_input_as_it_came(make: Maker) -> None:
    model = make("0.9.0")
    inputs = question(
        2,
        end_id=2,
        temperature=0.5,
        random_seed=2**63 + 1,
        return_log_probs=True,
        bad_words_list=words([8, 9], [10]),
        embedding_bias=[0.0, -100.0, 0.25],
        prompt_embedding_table=[[0.5, -2.0]],
    )
    model.ask(inputs, "세션 1")
    (event,) = model.events("request")
    assert event["id"] == "세션 1"
    assert "output_ids" in event["outputs"]
    received = {
        name: (t["datatype"], t["shape"], t["values"]) for name, t in event["inputs"].items()
    }
    assert received == {
        "input_ids": ("INT32", [1, 3], PROMPT),
        "input_lengths": ("INT32", [1], [3]),
        "request_output_len": ("INT32", [1, 1], [2]),
        "end_id": ("INT32", [1], [2]),
        "temperature": ("FP32", [1], [0.5]),
        "random_seed": ("UINT64", [1], [2**63 + 1]),
        "return_log_probs": ("BOOL", [1], [True]),
        "bad_words_list": ("INT32", [1, 2, 3], [8, 9, 10, 2, 3, -1]),
        "embedding_bias": ("FP32", [1, 3], [0.0, -100.0, 0.25]),
        "prompt_embedding_table": ("FP16", [1, 1, 2], [0.5, -2.0]),
    }
    assert model.wait_for_end() == {"event": "end", "id": "세션 1", "reason": "length", "tokens": 2}


# Under load


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_ten_thousand_requests_leave_memory_flat(make: Maker, server: Server) -> None:
    model = make("1.x")

    def run(count: int) -> None:
        for batch in range(count // 50):
            for number in range(50):
                model.send(question(8, streaming=number % 2 == 0), str(batch * 50 + number))
            finals = 0
            while finals < 50:
                finals += model.receive().final

    run(2_000)
    before = resident_kib(server.process.pid)
    run(10_000)
    assert resident_kib(server.process.pid) - before < 8 * 1024
