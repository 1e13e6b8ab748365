# SPDX-License-Identifier: Apache-2.0
"""Which requests are checked, and against what: the models' configurations, as Triton has them."""

import asyncio
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from trellis.contract.client_inputs import PROMPT
from trellis.contract.wiring_names import IDS_SUFFIX
from trellis.gateway.fields import Field
from trellis.gateway.outputs import Output, read_outputs
from trellis.gateway.plugins import Plugins
from trellis.gateway.refusals import Refusal, shown, unreachable
from trellis.gateway.responses import Responses
from trellis.gateway.routes import Route, choose_route
from trellis.repository.manifest import MadeModel, made_models, wired_as_made

CONTEXT = ("max_seq_len", "max_input_len", "max_tokens_limit")  # parameters of models
MAX_KNOWN = 1024  # paths; some have many names
FRESH_SECONDS = 30.0
FETCH_SECONDS = 5.0
# The server is on this machine: no proxy of the environment stands between.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Config = dict[str, Any]


def model_path(name: str, version: str = "") -> str:
    """Where Triton has a model, or one version of it.

    >>> model_path("ensemble", "1")
    '/v2/models/ensemble/versions/1'
    """
    return f"/v2/models/{name}/versions/{version}" if version else f"/v2/models/{name}"


@dataclass(frozen=True)
class Model:
    """What is known of a model: an ensemble that takes `text_input` is checked, others are not."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    known_by_id: bool = False  # its engine tells requests apart by ids alone: TensorRT-LLM's own
    route: Route | None = None  # past its plugins
    is_ensemble: bool = False
    responses: Responses = field(default_factory=Responses)  # how many it gives to a request
    inputs: dict[str, Field] = field(default_factory=dict)  # also of a model that is not checked
    outputs: dict[str, Output] = field(default_factory=dict)
    context: int = 0  # tokens that its engine can hold for a request; 0: not known
    engines: tuple[str, ...] = ()  # the models that are told of a client that is gone
    batch: int = 0  # rows of a request, at most; 0: it has no rows
    counted_by: str = ""  # the model that hears how often it was answered past Triton

    @property
    def checked(self) -> bool:
        """Whether requests for it are looked at."""
        return bool(self.fields)

    @property
    def stops_by_id(self) -> bool:
        """Whether a second request ends one that is in flight, by its id."""
        return self.known_by_id and "stop" in self.fields


def read_model(
    config: Config,
    config_of: Callable[[str], Config],
    load: Callable[[Config, Config], Plugins] = lambda *_: Plugins(),
    as_made: Callable[[Config], bool] = lambda _: False,
    has_steps: Callable[[Config], bool] = lambda _: False,
) -> Model:
    """A model by its configuration; `config_of` gives those of an ensemble's steps.

    `load` gives the plugins that its first and its last step are, `as_made` says whether an
    ensemble is wired as `make repo` wires it, `has_steps` whether a model may be asked by its step
    socket.
    """
    batch = int(config.get("max_batch_size", 0))
    inputs = {tensor["name"]: Field.of(tensor, batch > 0) for tensor in config.get("input", [])}
    outputs = read_outputs(config)
    is_ensemble = config.get("platform") == "ensemble"
    known = Model(
        config["name"], is_ensemble=is_ensemble, inputs=inputs, outputs=outputs, batch=batch
    )
    if not is_ensemble:
        return replace(known, engines=(known.name,))
    steps = {name: config_of(name) for name in step_names(config)}
    known = replace(known, engines=tuple(_engines(steps, config_of)))
    if PROMPT not in inputs:
        return known
    return replace(
        known,
        fields=inputs,
        known_by_id=any(step.get("backend") == "tensorrtllm" for step in steps.values()),
        route=choose_route(config, config_of, inputs, load, as_made, has_steps),
        responses=Responses.of(steps.values()),
        context=_context(steps.values()),
        counted_by=next(iter(steps), ""),
    )


def step_names(ensemble: Config) -> list[str]:
    """The models that an ensemble runs, in order."""
    steps = ensemble.get("ensemble_scheduling", {}).get("step", [])
    return [step["model_name"] for step in steps]


def _engines(steps: Mapping[str, Config], config_of: Callable[[str], Config]) -> Iterator[str]:
    """Those that may run for long, of the models of an ensemble: they answer as they wish."""
    for name, step in steps.items():
        if step.get("platform") == "ensemble":
            inner = {each: config_of(each) for each in step_names(step)}
            yield from _engines(inner, config_of)
        elif step.get("model_transaction_policy", {}).get("decoupled"):
            yield name


def _context(steps: Iterable[Config]) -> int:
    """The most tokens of a request, as the configurations of an ensemble's models say it."""
    said = [
        step.get("parameters", {}).get(name, {}).get("string_value", "")
        for step in steps
        for name in CONTEXT
    ]
    return max((int(value) for value in said if value.isdecimal()), default=0)


def check_inner(model: Model) -> None:
    """Raise Refusal for a model that is no ensemble, or one that only this gateway asks."""
    if not model.is_ensemble or model.name.endswith(IDS_SUFFIX):
        raise Refusal(
            404,
            f"{shown(model.name)}: over HTTP only ensembles are asked; ask ensemble, or launch with"
            " --expose-inner-models",
        )


class Models:
    """The models of the server behind, asked for once and again when they may have changed."""

    def __init__(
        self,
        triton_port: int,
        model_repo: str = "",
        short_way: bool = True,
        prompt_cache_bytes: int = 0,
    ) -> None:
        """`model_repo`: the repository that ids are made text of; "": none.

        `short_way`: whether engines may be asked by their step sockets. `prompt_cache_bytes`: what
        each model's ids of beginnings of prompts may take.
        """
        self._prompt_cache_bytes = prompt_cache_bytes
        self._short_way = short_way
        self._url = f"http://127.0.0.1:{triton_port}"
        self._repository = Path(model_repo) if model_repo else None
        self._plugins: dict[str, Plugins] = {}  # by the configurations that they were loaded by
        self._loading = threading.Lock()
        self._made: tuple[float, dict[str, MadeModel]] = (0.0, {})
        self._loads = 0  # how often models may have changed
        self._known: dict[str, tuple[float, Model]] = {}
        self._asking: dict[str, asyncio.Future[Model | Refusal]] = {}

    def made(self) -> dict[str, MadeModel]:
        """The ensembles that `make repo` made, by name; as of FRESH_SECONDS ago at most."""
        read, made = self._made
        now = time.monotonic()
        if not read or now - read > FRESH_SECONDS:
            found = made_models(self._repository) if self._repository else []
            made = {model.name: model for model in found}
            self._made = now, made
        return made

    def forget(self) -> None:
        """Models were loaded or unloaded."""
        self._loads += 1
        self._made = 0.0, {}
        self._known.clear()
        self._asking.clear()  # who asks from now on does not get an answer of before
        self._plugins.clear()  # files may be others, too

    def known(self, path: str) -> Model | None:
        """The model, if it is known for not too long."""
        since, model = self._known.get(path, (0.0, None))
        return model if model and time.monotonic() - since < FRESH_SECONDS else None

    async def find(self, path: str) -> Model:
        """The model. Raises Refusal if Triton does not show its configuration."""
        found = await self._find(path)
        if isinstance(found, Refusal):
            raise replace(found)
        return found

    async def largest_context(self) -> int:
        """The most tokens that an engine of the ensembles can hold; 0: not known."""
        found = [await self._find(model_path(name)) for name in self.made()]
        return max((each.context for each in found if not isinstance(each, Refusal)), default=0)

    async def _find(self, path: str) -> Model | Refusal:
        known = self.known(path)
        if known is not None:
            return known
        loads = self._loads
        asking = self._asking.get(path)
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = self._asking[path] = loop.run_in_executor(None, self._ask, path)
        try:
            model = await asyncio.shield(asking)
        finally:
            if self._asking.get(path) is asking:
                del self._asking[path]
        if isinstance(model, Model) and loads == self._loads:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[path] = (time.monotonic(), model)
        return model

    def _ask(self, path: str) -> Model | Refusal:
        try:
            return read_model(
                self._config(path),
                lambda step: self._config(f"/v2/models/{step}"),
                self._load,
                self._as_made,
                self._has_steps,
            )
        except urllib.error.HTTPError as error:
            return Refusal(404, f"{_reason(error)}; ask /v2/models/ensemble")
        except OSError:
            return unreachable()
        except (HTTPException, ValueError, KeyError, TypeError):
            return Refusal(502, f"the configuration of {path} could not be read")

    def _as_made(self, ensemble: Config) -> bool:
        if self._repository is None:
            return False
        return wired_as_made(self._repository, ensemble)

    def _has_steps(self, engine: Config) -> bool:
        """Whether a model may be asked by its step socket: a Python engine, as it was made."""
        if not self._short_way or self._repository is None or engine.get("backend") != "python":
            return False
        from trellis.gateway.plugin_loading import is_own_engine

        return is_own_engine(engine, self._repository)

    def _load(self, before: Config, last: Config) -> Plugins:
        """The plugins of two models, loaded once; none where these have to do it."""
        key = json.dumps([before, last])
        with self._loading:
            if self._repository is None:
                return Plugins()
            loads, plugins = self._loads, self._plugins.get(key)
            if plugins is None:
                size = self._prompt_cache_bytes
                plugins = _load_or_say(before, last, self._repository, size)
                if loads == self._loads:
                    self._plugins[key] = plugins
            return plugins

    def _config(self, path: str) -> Config:
        with _DIRECT.open(f"{self._url}{path}/config", timeout=FETCH_SECONDS) as response:
            config: Config = json.load(response)
        return config


def _reason(error: urllib.error.HTTPError) -> str:
    """Why Triton does not show a configuration, in its own words."""
    try:
        return str(json.load(error)["error"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"the model cannot be asked (status {error.code})"


def _load_or_say(before: Config, last: Config, repository: Path, cache_bytes: int) -> Plugins:
    try:
        from trellis.gateway.plugin_loading import load_plugins

        plugins = load_plugins(before, last, repository, cache_bytes)
    except Exception as error:  # of a tokenizer_type: the other way is still there
        plugins = Plugins(why_not=str(error))
    if plugins.why_not:
        models = "`preprocessing`" if plugins.texts else "`preprocessing` and `postprocessing`"
        print(
            f"HTTP gateway: requests go through {models}, at more CPU: {plugins.why_not}",
            file=sys.stderr,
            flush=True,
        )
    return plugins
