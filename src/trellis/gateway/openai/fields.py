# SPDX-License-Identifier: Apache-2.0
"""The fields that chat, completions and responses share, and how a body becomes a checked object.

A field works, or is rejected by its name when it asks for something. null counts as not sent.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from trellis.contract.sampling_fields import INT32_MAX
from trellis.gateway.json_bounds import check_bounds
from trellis.gateway.limits import Limits
from trellis.gateway.openai.errors import Names, OpenAIError, bad
from trellis.gateway.refusals import shown

SEEDS = 2**63
MOST_METADATA = 16  # keys, as OpenAI has it; answers repeat them
MOST_STOPS = 1024  # beyond, a list is not looked at; the repository's own limits are smaller
NO_MEDIA = "only text is made; leave it out"

Count = Annotated[int, Field(ge=0, le=INT32_MAX)]
Positive = Annotated[int, Field(ge=1, le=INT32_MAX)]
Choices = Annotated[int, Field(ge=1, le=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# Of long lists: one error of 100,000 is enough, and takes no time.
FAIL_FAST = Field(fail_fast=True)
Asked = TypeVar("Asked", bound="Fields")


class Fields(BaseModel):
    """A request's fields."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    # Field -> why it is rejected if it holds anything but null, false, or what `neutral` lists.
    rejected: ClassVar[Mapping[str, str]] = {}
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def check_rejected(self, within: str = "") -> None:
        """Raise OpenAIError for a field that asks for what is not served.

        `within`: the field that has these, with a dot.
        """
        for name in self.model_fields_set:
            why = self.rejected.get(name)
            value = getattr(self, name)
            neutral = (None, False, *self.neutral_values(name))
            if why and not any(_same(value, each) for each in neutral):
                raise bad(f"{within}{name}", why, "unsupported_parameter")

    def neutral_values(self, name: str) -> tuple[Any, ...]:
        """What a rejected field may hold, since it asks for nothing."""
        return self.neutral.get(name, ())


def _same(value: Any, other: Any) -> bool:
    """Equal, and of one type: 0 is not false, and true is not 1."""
    return type(value) is type(other) and bool(value == other)


class StreamOptions(Fields):
    """`stream_options` of a response."""

    include_obfuscation: bool | None = None  # accepted: what is sent is sent as it is


class ChunkOptions(StreamOptions):
    """`stream_options` of chats and completions."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class CacheOptions(Fields):
    """`prompt_cache_options`."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: str | None = None


class Sampling(Fields):
    """What every endpoint that generates takes."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[Number, Field(ge=0, le=1e6)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32_MAX)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=2 * SEEDS)] | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    no_repeat_ngram_size: Count | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True, max_length=MOST_STOPS)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None
    skip_special_tokens: bool | None = None
    stop_token_ids: Annotated[list[Count], Field(fail_fast=True, max_length=MOST_STOPS)] | None = (
        None
    )
    include_stop_str_in_output: bool | None = None
    bad_words: Annotated[list[str], Field(fail_fast=True, max_length=MOST_STOPS)] | None = None
    priority: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] | None = None
    # Harmless: nothing is kept, and all requests are served alike.
    user: str | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MOST_METADATA)] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: CacheOptions | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Any = None

    @property
    def names(self) -> Names:
        """The fields that this endpoint has other names for than chats, as errors name them."""
        return {}

    @property
    def streams(self) -> bool:
        """Whether the answer comes piece by piece. Raises OpenAIError."""
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options", "only means something with stream: true; leave it out")
        return bool(self.stream)

    @property
    def stops(self) -> list[str]:
        """The stop strings; "" is none."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [word for word in stop if word]


class Generating(Sampling):
    """What chat and completions share beyond that."""

    rejected: ClassVar[Mapping[str, str]] = {
        "store": "nothing is kept; send false, or leave it out",
        "use_beam_search": "beams are asked by /v2 (beam_width); leave it out",
        "best_of": "only what is answered is made, n; leave it out",
    }

    max_tokens: Positive | None = None
    n: Choices | None = None
    stream_options: ChunkOptions | None = None
    use_beam_search: Any = None
    best_of: Any = None

    def neutral_values(self, name: str) -> tuple[Any, ...]:
        """As many as `n` are made anyway; 1 is OpenAI's default."""
        return (1, self.n) if name == "best_of" else super().neutral_values(name)


def read_fields(kind: type[Asked], body: bytes, limits: Limits, context: int = 0) -> Asked:
    """A body as a checked object. Raises OpenAIError with the field and what to do.

    `context`: tokens of the largest one of the models.
    """
    check_bounds(body, limits, context)
    if not body.strip():
        raise OpenAIError(400, "the body is empty; send a JSON object")
    try:
        data = from_json(body, allow_inf_nan=False)
        json.loads(body.decode(), object_pairs_hook=_once)
    except ValueError as error:
        raise OpenAIError(400, f"the body is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise OpenAIError(400, "the body is no JSON object; send one")
    try:
        asked = kind.model_validate(data)
    except ValidationError as error:
        raise _wrong(kind, error, data) from None
    asked.check_rejected()
    return asked


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Raise OpenAIError for a key that stands twice: others may read the other value."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise bad(shown(key), "sent twice; send it once", "invalid_value")
        seen.add(key)


def _wrong(kind: type[Fields], error: ValidationError, data: dict[str, Any]) -> OpenAIError:
    """What is wrong with a body: of a union's kinds, the one that fits it furthest."""
    errors = error.errors(include_url=False, include_input=False)
    field = errors[0]["loc"][:1]
    first = max((each for each in errors if each["loc"][:1] == field), key=lambda e: _fit(e, data))
    where = _where(first["loc"], data)
    if first["type"] == "extra_forbidden":
        return bad(where, _unknown(where, kind), "unknown_parameter")
    if first["type"] == "missing":
        return bad(where, "missing; send it", "missing_required_parameter")
    if first["type"] == "too_long":
        most = first["ctx"]["max_length"]
        return bad(where, f"too many items; send at most {most}", "invalid_value")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return bad(where, f"{message[:1].lower()}{message[1:]}", "invalid_value")


def _fit(error: Any, data: Any) -> tuple[bool, int, list[int], bool]:
    """How far a value fits before an error: all but its length, how deep, past how many items."""
    place = _place(error["loc"], data)
    items = [part for part in place if isinstance(part, int)]
    kind = error["type"]
    return kind == "too_long", len(place), items, not kind.endswith("_type")


def _where(loc: tuple[int | str, ...], data: Any) -> str:
    """A place in a body as text.

    >>> _where(("stop", "list[str]", 0), {"stop": [1]})
    'stop[0]'
    """
    path = ""
    for part in _place(loc, data):
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{shown(part)}" if path else shown(part)
    return path or "body"


def _place(loc: tuple[int | str, ...], data: Any) -> list[int | str]:
    """A place in a body, without what pydantic puts in between for the kinds of a union."""
    place: list[int | str] = []
    for part in loc:
        if isinstance(data, dict):
            if not isinstance(part, str) or (part not in data and place and part != loc[-1]):
                continue
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            continue
        place.append(part)
    return place


def _unknown(where: str, kind: type[Fields]) -> str:
    name = where.rpartition(".")[2]
    near = difflib.get_close_matches(name, kind.model_fields, n=1) if "." not in where else []
    hint = f"did you mean {near[0]}?" if near else "leave it out"
    return f"not known; {hint}"
