"""A guide that the model has no tokens for, before TensorRT-LLM's own engine gets it."""

import json
from pathlib import Path

import pytest

from support.fake_engines import write_engine
from support.shown_config import model_of
from trellis.engine_files.engine_folder import read_engine
from trellis.errors import RequestError
from trellis.gateway.engine_requests import EngineRequests
from trellis.repository.assemble import Plan, assemble

TYPE, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"


@pytest.fixture(scope="module")
def requests(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> EngineRequests:
    """Those of a repository with SmolLM2's tokenizer, whose vocabulary lacks U+0004."""
    folder = tmp_path_factory.mktemp("letters")
    engine = read_engine(write_engine(folder / "out", "1.x", vocab_size=49152))
    repository = folder / "triton_model_repo"
    settings = {"guided_decoding_backend": "xgrammar"}
    assemble(Plan(engine, "gpt2", demo_engine[1], settings=settings), repository)
    route = model_of(repository).route
    assert route is not None
    assert route.requests is not None
    return route.requests


@pytest.mark.parametrize(("expression", "taken"), [("a\\x04", False), ("a[\\x04b]\\x05", True)])
def test_it_is_rejected_by_name(requests: EngineRequests, expression: str, taken: bool) -> None:
    values = {"text_input": "Say it", "max_tokens": 4, TYPE: "regex", GUIDE: expression}
    if taken:
        made = requests.body(values, "1f" * 16, 100)
        assert made is not None
        assert TYPE in json.loads(made.body)
        return
    with pytest.raises(RequestError, match=rf"^{GUIDE}: this model has no tokens for U\+0004"):
        requests.body(values, "1f" * 16, 100)
