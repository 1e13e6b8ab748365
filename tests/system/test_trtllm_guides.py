"""Guided decoding with TensorRT-LLM's own engine: what it would not understand is refused by name.

Over gRPC `preprocessing` reads the request, over HTTP the gateway runs its code.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from support.standin import Script, read_journal
from support.standin_server import Served, serve
from trellis.guides.translate import translate
from trellis.tokenizers import load

TYPE, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"
TYPES = "json, json_schema, regex, ebnf_grammar, structural_tag"
BACKENDS = {"xgrammar": {"guided_decoding_backend": "xgrammar"}, "none": {}}
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "an unknown type": ({TYPE: "yaml", GUIDE: "x"}, f"{TYPE}: 'yaml' is not known; send one of"),
    "an empty type": ({TYPE: "", GUIDE: "x"}, f"{TYPE}: '' is not known; send one of {TYPES}"),
    "capital letters": ({TYPE: "JSON"}, f"{TYPE}: 'JSON' is not known; send one of {TYPES}"),
    "a guide without a type": ({GUIDE: "{}"}, f"{TYPE}: missing beside {GUIDE}; send one of"),
    "a schema without a guide": ({TYPE: "json_schema"}, f"{GUIDE}: missing; {TYPE} json_schema"),
    "a grammar without a guide": ({TYPE: "ebnf_grammar"}, f"{GUIDE}: missing; {TYPE} ebnf"),
    "a structural tag": ({TYPE: "structural_tag", GUIDE: "{}"}, f"{TYPE}: releases of this engine"),
    "a keyword that is not held": (
        {TYPE: "json_schema", GUIDE: '{"not": {}}'},
        f"{GUIDE}: $.not: not supported by this engine's grammars; leave it out",
    ),
    "stop words beside a guide": (
        {TYPE: "json", "stop_words": "}"},
        "stop_words: could end the answer in the middle",
    ),
    "an empty guide": ({TYPE: "regex", GUIDE: ""}, f"{GUIDE}: missing; {TYPE} regex needs it"),
}
TAKEN: list[dict[str, str]] = [
    {TYPE: "json"},
    {TYPE: "json_schema", GUIDE: '{"type": "object"}'},
    {TYPE: "regex", GUIDE: "[0-9]+"},
    {TYPE: "ebnf_grammar", GUIDE: "root ::= [0-9]+"},
]


@pytest.fixture(scope="module", params=["0.19.0", "1.x"])
def release(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def guided(
    release: str,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
) -> Iterator[Served]:
    yield from served(release, "xgrammar", tmp_path_factory, standin_library, llama_folder)


@pytest.fixture(scope="module")
def unguided(
    release: str,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
) -> Iterator[Served]:
    yield from served(release, "none", tmp_path_factory, standin_library, llama_folder)


def served(
    release: str, backend: str, factory: pytest.TempPathFactory, library: Path, tokenizer: Path
) -> Iterator[Served]:
    scripts = [Script(answer=load("llama", tokenizer).encode("Hello")[1:])]
    folder = factory.mktemp(f"guides-{release}-{backend}")
    with serve(release, folder, library, tokenizer, scripts, BACKENDS[backend]) as running:
        yield running


def refusals(served: Served, values: dict[str, str]) -> list[str]:
    """The messages over HTTP and over gRPC, neither of which came to the engine."""
    before = len(read_journal(served.folder / "journal"))
    answer = served.post(text_input="Say it", max_tokens=4, **values)
    assert answer.status_code == 400, answer.text
    with pytest.raises(InferenceServerException) as error:
        served.ask_with(["Say it"], tensors(values), max_tokens=4)
    assert len(read_journal(served.folder / "journal")) == before
    messages = [answer.json()["error"], str(error.value.message())]
    return [message.removeprefix("in ensemble 'ensemble', ") for message in messages]


def tensors(values: dict[str, str], rows: int = 1) -> list[tuple[str, str, np.ndarray]]:
    return [
        (name, "BYTES", np.array([[text.encode()]] * rows, np.object_))
        for name, text in values.items()
    ]


@pytest.mark.parametrize("case", REFUSED)
def test_a_guide_that_makes_no_sense_is_refused_by_name(guided: Served, case: str) -> None:
    values, message = REFUSED[case]
    for said in refusals(guided, values):
        assert said.startswith(message), said


@pytest.mark.parametrize("values", TAKEN, ids=str)
def test_a_guide_that_makes_sense_goes_to_the_engine(guided: Served, values: Any) -> None:
    kind, guide = translate(values[TYPE], values.get(GUIDE, ""))
    assert guided.post(text_input="Say it", max_tokens=4, **values).status_code == 200
    got = guided.received()
    assert (got[TYPE], got[GUIDE]) == ([kind], [guide])
    guided.ask_with(["Say it"], tensors(values), max_tokens=4)
    got = guided.received()
    assert (got[TYPE], got[GUIDE]) == ([kind], [guide])


def test_one_prompt_of_a_batch_without_its_guide_refuses_the_request(guided: Served) -> None:
    pair = [
        (TYPE, "BYTES", np.array([[b"json"], [b"regex"]], np.object_)),
        (GUIDE, "BYTES", np.array([[b""], [b""]], np.object_)),
    ]
    with pytest.raises(InferenceServerException, match=f"{GUIDE}: missing; {TYPE} regex"):
        guided.ask_with(["Say it"] * 2, pair, max_tokens=4)


@pytest.mark.parametrize("values", [*TAKEN, {GUIDE: "{}"}], ids=str)
def test_where_no_backend_is_configured_guides_are_refused_by_name(
    unguided: Served, values: dict[str, str]
) -> None:
    name = TYPE if TYPE in values else GUIDE
    for said in refusals(unguided, values):
        assert said == (
            f"{name}: this repository was made without guided decoding; leave it out"
            " (SET=guided_decoding_backend:xgrammar)"
        )


def test_an_empty_guide_alone_asks_for_nothing(guided: Served, unguided: Served) -> None:
    for served in (guided, unguided):
        assert served.post(text_input="Say it", max_tokens=4, **{GUIDE: ""}).status_code == 200
