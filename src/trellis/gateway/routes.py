# SPDX-License-Identifier: Apache-2.0
"""Chooses the route of a request: the engine directly, `ensemble_ids`, or `ensemble`.

Most requests go to the engine itself. For those that cannot, the assembler writes an ensemble that
ends at the engine, `ensemble_ids`. Both are only for the ensembles that `make repo` wired, as its
manifest has them, with the plugins of this release (see plugin_loading.py); what else somebody put
there is asked as it is.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.contract.wiring_names import IDS_SUFFIX
from trellis.gateway.engine_requests import EngineRequests, Written
from trellis.gateway.fields import Field
from trellis.gateway.limits import LONG_BODY, MAX_ENGINE_BODY
from trellis.gateway.plugins import NO_FORMATS, Formats, Plugins
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Refusal
from trellis.gateway.text_answers import Source

if TYPE_CHECKING:
    from trellis.pipeline.decode import Detokenizer

Config = dict[str, Any]
log = logging.getLogger("trellis.gateway")
TEXT = "text_output"  # of the ensemble
STEPS = 3  # preprocessing, the engine, postprocessing
ONE_VERSION = {"latest": {"num_versions": 1}}


@dataclass(frozen=True)
class Bounds:
    """What a model's configurations say of how many tokens it takes; 0: nothing."""

    max_seq_len: int = 0  # prompt and answer together
    kv_cache_tokens: int = 0  # of all requests
    max_tokens_limit: int = 0  # of an answer

    @classmethod
    def of(cls, models: Sequence[Config]) -> "Bounds":
        """The smallest of each."""
        return cls(
            _least(models, "max_seq_len"),
            _least(models, "max_tokens_in_paged_kv_cache"),
            _least(models, "max_tokens_limit"),
        )


@dataclass(frozen=True)
class Route:
    """The models that are asked, and what makes text of their answers."""

    name: str  # of the ensemble that clients ask
    texts: "Detokenizer"
    ensemble: Source | None  # `ensemble_ids`; None: it is not loaded, and `ensemble` is asked
    engine: Source | None = None
    requests: EngineRequests | None = None  # to the engine
    refusal: type[Exception] = ValueError  # what those raise
    has_steps: bool = False  # whether the engine may be asked by its step socket
    told: frozenset[str] = frozenset()  # what asks for something that only the last step tells
    bounds: Bounds = Bounds()
    formats: Formats = NO_FORMATS  # of calls and reasoning in its answers

    def fits(self, asked: "Prepared") -> bool:
        """Whether a request can be answered in this way."""
        asks = any(asked.values.get(name) not in (None, False, [False]) for name in self.told)
        return asked.one_text and not asks

    def is_long(self, asked: Prepared) -> bool:
        """Whether to make its body takes so long that others should not wait for it."""
        if self.requests is None or asked.size > MAX_ENGINE_BODY:
            return False
        guided = GUIDE_TYPE in asked.values  # and the gateway may have to translate the guide
        return asked.size > LONG_BODY or (guided and self.requests.preprocessor.thread_safe)

    def body(self, asked: Prepared, answer_type: bytes) -> Written | Refusal | None:
        """What the engine is sent; None if the ensemble has to be asked. Any thread's.

        `answer_type`: the content type that the request is answered with.
        """
        if self.requests is None or asked.stops:
            return None
        try:
            return self.requests.body(asked.values, asked.request_id.inner, asked.size)
        except self.refusal as bad:  # what `preprocessing` would have said
            message = f"in ensemble '{self.name}', {bad}"
            return Refusal(400, message, content_type=answer_type)
        except Exception as error:  # the models are still there
            log.error("a request could not be made for the engine: %s", error)
            return None


def choose_route(
    config: Config,
    config_of: Callable[[str], Config],
    fields: dict[str, Field],
    load: Callable[[Config, Config], Plugins],
    as_made: Callable[[Config], bool],
    has_steps: Callable[[Config], bool] = lambda _: False,
) -> Route | None:
    """The way for an ensemble; None if it is to be asked itself.

    `config_of` gives the configuration of a model, or raises OSError; `load` the plugins of the
    first and the last step; `as_made` says whether an ensemble is wired as `make repo` wires it,
    `has_steps` whether a model may be asked by its step socket.
    """
    steps = config["ensemble_scheduling"]["step"]
    ids = _ids_config(config["name"], config_of)
    if not as_made(config) or (ids is not None and not as_made(ids)):
        return None
    if len(steps) != STEPS:  # `ensemble_ids` itself
        return None
    before, engine, last = models = [config_of(step["model_name"]) for step in steps]
    if not all(map(_only_the_latest, models)):
        return None
    plugins = load(before, last)
    if plugins.texts is None:
        return None
    shown = {tensor["name"] for tensor in config["output"]}
    source = None
    if ids is not None:
        same = {tensor["name"]: tensor["name"] for tensor in ids["output"]}
        source = _source(config, ids, same, shown)
    told = frozenset(f"return_{name}" for name in _given(steps[2]) - {TEXT})
    way = Route(config["name"], plugins.texts, source, told=told, bounds=Bounds.of(models))
    if plugins.preprocessor is None:
        return None if ids is None else way
    requests = EngineRequests(
        plugins.preprocessor, plugins.types, (steps[0], steps[1]), fields, plugins.encode_bare
    )
    asked = _source(config, engine, steps[1]["output_map"], shown, is_engine=True)
    return replace(
        way,
        engine=asked,
        requests=requests,
        refusal=plugins.refusal,
        has_steps=has_steps(engine),
        formats=plugins.formats,
    )


def _ids_config(ensemble: str, config_of: Callable[[str], Config]) -> Config | None:
    """The configuration of `ensemble_ids`; None where it is not loaded, as in explicit mode."""
    try:
        return config_of(ensemble + IDS_SUFFIX)
    except OSError:
        return None


def _source(
    config: Config,
    asked: Config,
    names: dict[str, str],
    shown: Collection[str],
    is_engine: bool = False,
) -> Source:
    outputs = [tensor["name"] for tensor in asked["output"]]
    kept = {name: names[name] for name in outputs if names.get(name) in shown}
    return Source(
        config["name"],
        asked["name"],
        {name.encode(): shown_as.encode() for name, shown_as in kept.items()},
        frozenset(name.encode() for name in outputs if name not in kept),
        is_engine,
    )


def _least(models: Sequence[Config], name: str) -> int:
    said = [model.get("parameters", {}).get(name, {}).get("string_value", "") for model in models]
    return min((int(value) for value in said if value.isdecimal() and int(value)), default=0)


def _given(step: Config) -> set[str]:
    """The ensemble's tensors that a step gives."""
    return set(step["output_map"].values())


def _only_the_latest(model: Config) -> bool:
    """Whether Triton serves one version of it: the one with the highest number."""
    policy: Config = model.get("version_policy", ONE_VERSION)
    return policy == ONE_VERSION
