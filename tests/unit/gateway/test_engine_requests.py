"""What the gateway sends to the engine itself is what `ensemble` sends: for every release.

Here `preprocessing` runs without Triton, and the ensemble's wires are followed by hand;
tests/system/test_engine_requests.py asks the same of a real server.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.fake_engines import slow_but_kinds, write_engine
from support.fake_triton import InferenceResponse, Tensor
from support.generate_bodies import BODIES
from support.shown_config import config_of, model_of
from trellis.contract.release import read_contract
from trellis.contract.tensor_types import numpy_type
from trellis.contract.wiring_names import STEP_MARK
from trellis.engine_files.engine_folder import read_engine
from trellis.errors import RequestError
from trellis.gateway.body import prepare
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.ipc.disconnect_sender import PARAMETER
from trellis.ipc.stream_announcements import Listener
from trellis.repository.assemble import Plan, assemble

INNER_ID = "1f" * 16


@dataclass
class Request:
    """What Triton's stub gives a Python model."""

    tensors: list[Any]
    id: str

    def inputs(self) -> list[Any]:
        return self.tensors

    def request_id(self) -> str:
        return self.id


class Input(Tensor):
    """A tensor that comes in, with the methods of the stub's."""

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass
class Wired:
    """A repository without a server: its ensemble, and `preprocessing` in this process."""

    release: str
    ensemble: dict[str, Any]
    preprocessing: Any
    gateway: Model
    listener: Listener

    @property
    def steps(self) -> list[Any]:
        steps: list[Any] = self.ensemble["ensemble_scheduling"]["step"]
        return steps

    def over_ensemble(self, values: dict[str, Any], request_id: str) -> dict[str, list[Any]] | str:
        """The engine's tensors as the ensemble's wires bring them, or why there are none."""
        types = {one["name"]: numpy_type(one["data_type"]) for one in self.ensemble["input"]}
        sent = {
            name: np.array([value if isinstance(value, list) else [value]], types[name])
            for name, value in values.items()
        }
        before, engine = self.steps[:2]
        inputs = [
            Input(_as_stub_names(name), sent[wire])
            for name, wire in before["input_map"].items()
            if wire in sent
        ]
        response: InferenceResponse
        (response,) = self.preprocessing.execute([Request(inputs, request_id)])
        if response.error is not None:
            return response.error.message
        made = {tensor.name: tensor.array for tensor in response.output_tensors}
        wires = {
            wire: made[name]
            for name, wire in before["output_map"].items()
            if name in made and name != STEP_MARK
        }
        wires |= {name: array for name, array in sent.items() if name not in wires}
        return {
            name: wires[wire].reshape(-1).tolist()
            for name, wire in engine["input_map"].items()
            if wire in wires
        }

    def past_it(self, values: dict[str, Any], request_id: str, size: int) -> bytes | str | None:
        """The body that the gateway makes; None where it leaves the request to the ensemble."""
        route = self.gateway.route
        assert route is not None
        assert route.requests is not None
        try:
            made = route.requests.body(values, request_id, size)
            return None if made is None else made.body
        except RequestError as bad:
            return str(bad)


def _as_stub_names(name: str) -> Any:
    """The stub's tensors have their names behind a call."""
    return lambda: name


@pytest.fixture(
    scope="module",
    params=slow_but_kinds(),
)
def wired(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, llama_folder: Path
) -> Iterator[Wired]:
    from trellis.triton_models.preprocessing import TritonPythonModel

    folder = tmp_path_factory.mktemp("wired")
    engine = read_engine(write_engine(folder / "out", request.param))
    repository = folder / "triton_model_repo"
    guides = read_contract(request.param).input("guided_decoding_guide_type") is not None
    settings = {"guided_decoding_backend": "xgrammar"} if guides else {}
    assemble(Plan(engine, "llama", llama_folder, settings=settings), repository)
    listener = Listener(repository, 64)  # as `postprocessing` listens
    ensemble = config_of(repository, "ensemble")
    model = TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config_of(repository, "preprocessing")),
            "model_name": "preprocessing",
            "model_repository": str(repository / "preprocessing"),
            "model_version": "1",
        }
    )
    yield Wired(request.param, ensemble, model, model_of(repository), listener)
    model.finalize()
    listener.close()


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_gets_what_the_ensemble_sends(wired: Wired, case: str, stream: bool) -> None:
    wired.listener.drain()  # its queue is short
    body = {"id": "an id", "text_input": "Say it", "max_tokens": 40} | BODIES[case]
    if wired.release in ("0.5.0", "0.6.1") and body.get("end_id") == -1:
        body["end_id"] = 2**32 - 1  # what -1 is among unsigned numbers
    if stream:
        body["stream"] = True
    sent = json.dumps(body).encode()
    prepared = prepare(wired.gateway, sent, INNER_ID, Limits(), once=False)
    values = {name: value for name, value in prepared.values.items() if name != "id"}
    over = wired.over_ensemble(values, INNER_ID)
    past = wired.past_it(values, INNER_ID, len(sent))
    if past is None:
        assert "embedding_bias_words" in values or isinstance(over, str)
    elif isinstance(past, str):
        assert past == over
    else:
        engine = json.loads(past)
        assert engine.pop(PARAMETER) == INNER_ID
        assert engine.pop("id") == INNER_ID
        assert {name: _flat(value) for name, value in engine.items()} == over


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
