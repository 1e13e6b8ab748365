"""Which model a request's `model` names, and how many tokens may follow a prompt."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.gateway.metrics.record import Record
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.models import only_model, served_models
from trellis.gateway.openai.served import DEFAULT_TOKENS, Served, find_served
from trellis.gateway.refusals import Refusal
from trellis.gateway.routes import Bounds
from trellis.gateway.triton import NotTaken, Reply
from trellis.repository.manifest import MadeModel

MADE = {
    "ensemble": MadeModel("ensemble", 7, ("pirate", "team/legal")),
    "qwen": MadeModel("qwen", 8),
}
INDEX = b'[{"name":"ensemble","state":"READY"},{"name":"qwen","state":"UNAVAILABLE"},{"name":"x"}]'


class Models:
    """Two ensembles, one of which is edited."""

    def made(self) -> dict[str, MadeModel]:
        return MADE

    async def find(self, path: str) -> Any:
        name = path.removeprefix("/v2/models/")
        if name not in MADE:
            raise Refusal(404, "no such model")
        whole = SimpleNamespace(engine="engine", requests="requests", bounds=Bounds())
        route = whole if name == "ensemble" else None
        context = 2048 if name == "ensemble" else 0
        return SimpleNamespace(name=name, is_ensemble=True, route=route, context=context)


class Triton:
    """Its index, or nobody."""

    lost = False

    async def ask(self, *_: Any) -> Reply:
        if self.lost:
            raise NotTaken("gone")
        return Reply(200, b"application/json", INDEX)


def state() -> Any:
    settings = SimpleNamespace(admin_key="")
    return SimpleNamespace(models=Models(), triton=Triton(), settings=settings)


def find(name: str) -> Served:
    return asyncio.run(find_served(cast(Any, state()), name, Record()))


def test_a_model_or_an_adapter_of_one_is_found() -> None:
    assert (find("ensemble").model.name, find("ensemble").adapter) == ("ensemble", "")
    for adapter in ("pirate", "team/legal"):
        found = find(adapter)
        assert (found.name, found.model.name, found.adapter) == (adapter, "ensemble", adapter)


@pytest.mark.parametrize("name", ["nobody", "a/b", "..", "x?y", "x" * 65, "한국어", "a\nb"])
def test_what_is_not_there_is_a_404(name: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        find(name)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert json.loads(caught.value.body())["error"]["type"] == "invalid_request_error"


def test_a_model_whose_plugins_are_edited_is_not_served() -> None:
    with pytest.raises(OpenAIError) as caught:
        find("qwen")
    assert (caught.value.status, caught.value.param) == (501, "model")


def test_the_models_that_are_loaded_are_listed_with_their_adapters() -> None:
    listed = asyncio.run(served_models(state()))
    assert [model["id"] for model in listed] == ["ensemble", "pirate", "team/legal"]
    assert listed[1]["parent"] == "ensemble"
    assert listed[0]["created"] == 7
    assert [model.get("max_model_len") for model in listed] == [2048] * 3


class Loaded:
    """Some models that were made, some of them loaded."""

    def __init__(self, made: str, loaded: str) -> None:
        self.asked = 0
        self._made = made.split()
        self._index = [{"name": name, "state": "READY"} for name in loaded.split()]

    def made(self) -> dict[str, MadeModel]:
        return {name: MadeModel(name, 1, ("a",), name == "vectors") for name in self._made}

    async def find(self, path: str) -> Any:
        return SimpleNamespace(context=0)

    async def ask(self, *_: Any) -> Reply:
        self.asked += 1
        return Reply(200, b"application/json", json.dumps(self._index).encode())


def only(loaded: Loaded) -> str:
    settings = SimpleNamespace(admin_key="")
    there: Any = SimpleNamespace(models=loaded, triton=loaded, settings=settings)
    return asyncio.run(only_model(there))


@pytest.mark.parametrize(
    ("made", "loaded", "name", "asked"),
    [
        ("one", "one", "one", 0),
        ("one vectors", "one vectors", "one", 0),
        ("one two", "two", "two", 1),
        ("one two vectors", "vectors one", "one", 1),
    ],
)
def test_the_only_model_is_meant_where_none_is_named(
    made: str, loaded: str, name: str, asked: int
) -> None:
    there = Loaded(made, loaded)
    assert only(there) == name
    assert there.asked == asked


@pytest.mark.parametrize(
    ("made", "loaded", "told"),
    [
        ("two one", "one two", "send one of one, two"),
        ("one two", "", "none is loaded"),
        ("vectors", "vectors", "none is loaded"),
        ("", "", "none is loaded"),
    ],
)
def test_a_model_is_to_be_named_where_there_are_several_or_none(
    made: str, loaded: str, told: str
) -> None:
    with pytest.raises(OpenAIError) as caught:
        only(Loaded(made, loaded))
    assert (caught.value.status, caught.value.param) == (400, "model")
    assert caught.value.code == "missing_required_parameter"
    assert told in caught.value.message


def test_no_models_are_listed_where_triton_is_not_there() -> None:
    gone = state()
    gone.triton.lost = True
    with pytest.raises(Refusal) as caught:
        asyncio.run(served_models(gone))
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("bounds", "room"),
    [
        (Bounds(), DEFAULT_TOKENS),
        (Bounds(max_seq_len=100), 90),
        (Bounds(100, 50), 40),
        (Bounds(100, 50, 20), 20),
        (Bounds(5), 1),
    ],
)
def test_an_answer_has_the_room_that_the_prompt_leaves(bounds: Bounds, room: int) -> None:
    served = Served("m", cast(Any, None), cast(Any, SimpleNamespace(bounds=bounds)), *[None] * 2)  # type: ignore[arg-type]
    assert served.room(10) == room
    for sequences, allowed, less in (
        (1, 30, 20),
        (2, 30, 10),
        (4, 11, 1),
        (1, 9, 1),
        (1, 10**6, room),
    ):
        assert served.room(10, sequences, allowed) == min(room, less)


@pytest.mark.parametrize(
    ("fields", "cpp", "no_guides", "follows"),
    [
        ({GUIDE_TYPE: 1}, False, "", True),
        ({GUIDE_TYPE: 1}, False, "it has none", False),
        ({GUIDE_TYPE: 1}, True, "", False),
        ({}, False, "", False),
    ],
)
def test_structural_tags_are_followed_where_every_release_reads_them_alike(
    fields: dict[str, int], cpp: bool, no_guides: str, follows: bool
) -> None:
    inputs = SimpleNamespace(guides=SimpleNamespace(backend="xgrammar")) if cpp else None
    requests = SimpleNamespace(preprocessor=SimpleNamespace(engine_inputs=inputs))
    made: Any = [SimpleNamespace(fields=fields), None, SimpleNamespace(model="e"), requests]
    served = Served("m", *made)

    async def find(_: str) -> Any:
        return SimpleNamespace(no_guides=no_guides)

    state: Any = SimpleNamespace(steps=SimpleNamespace(find=find))
    assert asyncio.run(served.follows_tags(state)) is follows
