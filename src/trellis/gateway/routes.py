# SPDX-License-Identifier: Apache-2.0
"""Chooses the route of a request: the engine directly, `ensemble_ids`, or `ensemble`.

Most requests go to the engine itself. For those that cannot, the assembler writes an ensemble that
ends at the engine, `ensemble_ids`. Both are only for the three steps that `make repo` wires, with
the plugins of this release (see plugin_loading.py); what else somebody put there is asked as it is.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trellis.contract.wiring_names import IDS_SUFFIX, STEP_MARK, TOLD
from trellis.gateway.engine_requests import EngineRequests
from trellis.gateway.fields import Field
from trellis.gateway.limits import LONG_BODY, MAX_ENGINE_BODY
from trellis.gateway.plugins import Plugins
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Refusal
from trellis.gateway.text_answers import Source

if TYPE_CHECKING:
    from trellis.pipeline.decode import Detokenizer

Config = dict[str, Any]
log = logging.getLogger("trellis.gateway")
OUTPUT, TEXT = "OUTPUT", "text_output"  # of the last step, of the ensemble
IDS = "output_ids"  # the engine's output that it makes it of
LATEST = (-1, "-1")  # of a model's versions, as Triton or protobuf write it
ONE_VERSION = {"latest": {"num_versions": 1}}


@dataclass(frozen=True)
class Route:
    """The models that are asked, and what makes text of their answers."""

    texts: "Detokenizer"
    ensemble: Source
    engine: Source | None = None
    requests: EngineRequests | None = None  # to the engine
    refusal: type[Exception] = ValueError  # what those raise
    told: frozenset[str] = frozenset()  # what asks for something that only the last step tells

    def fits(self, asked: "Prepared") -> bool:
        """Whether a request can be answered in this way."""
        asks = any(asked.values.get(name) not in (None, False, [False]) for name in self.told)
        return asked.one_text and not asks

    def is_long(self, asked: Prepared) -> bool:
        """Whether to make its body takes so long that others should not wait for it."""
        return self.requests is not None and LONG_BODY < asked.size <= MAX_ENGINE_BODY

    def body(self, asked: Prepared, answer_type: bytes) -> bytes | Refusal | None:
        """What the engine is sent; None if the ensemble has to be asked. Any thread's.

        `answer_type`: the content type that the request is answered with.
        """
        if self.requests is None or asked.stops:
            return None
        try:
            return self.requests.body(asked.values, asked.request_id.inner, asked.size)
        except self.refusal as bad:  # what `preprocessing` would have said
            message = f"in ensemble '{self.ensemble.ensemble}', {bad}"
            return Refusal(400, message, content_type=answer_type)
        except Exception as error:  # the models are still there
            log.error("a request could not be made for the engine: %s", error)
            return None


def choose_route(
    config: Config,
    config_of: Callable[[str], Config],
    fields: dict[str, Field],
    load: Callable[[Config, Config], Plugins],
) -> Route | None:
    """The way for an ensemble; None if it is to be asked itself.

    `config_of` gives the configuration of a model, or raises OSError; `load` the plugins of the
    first and the last step.
    """
    steps = config["ensemble_scheduling"]["step"]
    try:
        ids = config_of(config["name"] + IDS_SUFFIX)
    except OSError:
        return None
    if len(steps) != 3 or "ensemble_scheduling" not in ids or not _is_the_same(config, ids):
        return None
    before, engine, last = models = [config_of(step["model_name"]) for step in steps]
    if not all(map(_only_the_latest, models)):
        return None
    plugins = load(before, last)
    if plugins.texts is None:
        return None
    shown = {tensor["name"] for tensor in config["output"]}
    same = {tensor["name"]: tensor["name"] for tensor in ids["output"]}
    told = frozenset(f"return_{name}" for name in _given(steps[2]) - {TEXT})
    way = Route(plugins.texts, _source(config, ids, same, shown), told=told)
    if plugins.preprocessor is None:
        return way
    requests = EngineRequests(plugins.preprocessor, plugins.types, (steps[0], steps[1]), fields)
    asked = _source(config, engine, steps[1]["output_map"], shown, is_engine=True)
    return replace(way, engine=asked, requests=requests, refusal=plugins.refusal)


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


def _is_the_same(config: Config, ids: Config) -> bool:
    """Whether an ensemble is another one but for its last step, which makes the text of ids.

    All else that it shows comes from the engine, and does so in both.
    """
    steps, first = (c["ensemble_scheduling"]["step"] for c in (config, ids))
    outputs = steps[1]["output_map"]
    shown, shown_ids = ({tensor["name"] for tensor in c["output"]} for c in (config, ids))
    others = shown - _given(steps[2])
    told = {name: TOLD[name] for name in TOLD.keys() & set(steps[2]["output_map"])}
    return (
        config["input"] == ids["input"]
        and len(first) == 2
        and all(map(_same_step, steps, first))
        and steps[2]["output_map"] == {OUTPUT: TEXT} | told
        and steps[2].get("model_version", -1) in LATEST
        and set(steps[2]["input_map"].values()) | others <= set(outputs.values())
        and others <= shown_ids
        and outputs.get(IDS) not in (None, *others)
    )


def _given(step: Config) -> set[str]:
    """The ensemble's tensors that a step gives."""
    return set(step["output_map"].values())


def _same_step(one: Config, other: Config) -> bool:
    inputs = [{k: v for k, v in s["input_map"].items() if k != STEP_MARK} for s in (one, other)]
    versions = [step.get("model_version", -1) for step in (one, other)]
    same = one["model_name"] == other["model_name"] and inputs[0] == inputs[1]
    return same and all(version in LATEST for version in versions)


def _only_the_latest(model: Config) -> bool:
    """Whether Triton serves one version of it: the one with the highest number."""
    policy: Config = model.get("version_policy", ONE_VERSION)
    return policy == ONE_VERSION
