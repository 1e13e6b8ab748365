"""Which requests are checked, and against what: the models' configurations, as Triton has them."""

import asyncio
import json
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trellis.front.fields import Field
from trellis.front.settings import IDS_SUFFIX
from trellis.front.texts import Texts, load_texts

GENERATE = re.compile(
    rb"(?:https?://[^/?#]*)?(/v2/models/[^/?#]+(?:/versions/[0-9]+)?)/generate(?:_stream)?(?:[?#].*)?",
    re.DOTALL,
)
FRESH_SECONDS = 30.0
FETCH_SECONDS = 5.0
# The server is on this machine: no proxy of the environment stands between.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Config = dict[str, Any]


def route(method: bytes, target: bytes) -> str:
    """The path of the model that a request asks to generate, '' for every other request.

    >>> route(b"POST", b"/v2/models/ensemble/versions/1/generate_stream?x=1")
    '/v2/models/ensemble/versions/1'
    >>> route(b"POST", b"/v2/models/ensemble/infer")
    ''
    """
    found = GENERATE.fullmatch(target) if method == b"POST" else None
    return found[1].decode("latin-1") if found else ""


@dataclass(frozen=True)
class Model:
    """What is known of a model: an ensemble that takes `text_input` is checked, others are not."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    known_by_id: bool = False  # its engine tells requests apart by ids alone: TensorRT-LLM's own
    shown: frozenset[str] = frozenset()  # its outputs
    texts: Texts | None = None  # of the ids that the ensemble beside it gives, if there is one

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
    texts_of: Callable[[Config], Texts | None] = lambda _: None,
) -> Model:
    """A model by its configuration; `config_of` gives those of an ensemble's steps.

    `texts_of` gives the tokenizer of its last step.
    """
    inputs = {tensor["name"]: tensor for tensor in config.get("input", [])}
    if config.get("platform") != "ensemble" or "text_input" not in inputs:
        return Model(config["name"])
    batched = config.get("max_batch_size", 0) > 0
    steps = [config_of(step["model_name"]) for step in config["ensemble_scheduling"]["step"]]
    return Model(
        config["name"],
        {name: Field.of(tensor, batched) for name, tensor in inputs.items()},
        any(step.get("backend") == "tensorrtllm" for step in steps),
        frozenset(tensor["name"] for tensor in config["output"]),
        texts_of(steps[-1]) if _gives_ids(config["name"], config_of) else None,
    )


def _gives_ids(name: str, config_of: Callable[[str], Config]) -> bool:
    """Whether Triton has the ensemble beside this one."""
    try:
        config_of(name + IDS_SUFFIX)
    except OSError:
        return False
    return True


class Models:
    """The models of the server behind, asked for once and again when they may have changed."""

    def __init__(self, triton_port: int, model_repo: str = "") -> None:
        """`model_repo`: the repository that ids are made text of; "": none."""
        self._url = f"http://127.0.0.1:{triton_port}"
        self._repository = Path(model_repo) if model_repo else None
        self._texts: dict[str, Texts | None] = {}  # by the configuration that they were loaded by
        self._loading = threading.Lock()
        self._known: dict[str, tuple[float, Model]] = {}
        self._asking: dict[str, asyncio.Future[Model | None]] = {}

    def heed(self, method: bytes, target: bytes) -> None:
        """A request passes by that may load other models."""
        if method == b"POST" and b"/v2/repository/" in target:
            self._known.clear()

    def known(self, path: str) -> Model | None:
        """The model, if it is known for not too long."""
        since, model = self._known.get(path, (0.0, None))
        return model if model and time.monotonic() - since < FRESH_SECONDS else None

    async def find(self, path: str) -> Model | None:
        """The model; None if Triton does not have it, or does not show its configuration."""
        model = self.known(path)
        if model is None:
            if path not in self._asking:
                loop = asyncio.get_running_loop()
                self._asking[path] = loop.run_in_executor(None, self._ask, path)
            try:
                model = await asyncio.shield(self._asking[path])
            finally:
                self._asking.pop(path, None)
            if model is not None:
                self._known[path] = (time.monotonic(), model)
        return model

    def _ask(self, path: str) -> Model | None:
        try:
            return read_model(
                self._config(path), lambda step: self._config(f"/v2/models/{step}"), self._load
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _load(self, postprocessing: Config) -> Texts | None:
        """The tokenizer of a model, loaded once; None where `postprocessing` has to do."""
        key = json.dumps(postprocessing)
        with self._loading:
            if self._repository is not None and key not in self._texts:
                self._texts[key] = _load_or_say(postprocessing, self._repository)
            return self._texts.get(key)

    def _config(self, path: str) -> Config:
        with _DIRECT.open(f"{self._url}{path}/config", timeout=FETCH_SECONDS) as response:
            config: Config = json.load(response)
        return config


def _load_or_say(postprocessing: Config, repository: Path) -> Texts | None:
    try:
        return load_texts(postprocessing, repository)
    except Exception as error:  # whatever a tokenizer_type raises: the other way is still there
        print(
            f"HTTP front: no tokenizer here ({error}); `postprocessing` makes the texts, at twice"
            " the CPU a chunk",
            file=sys.stderr,
            flush=True,
        )
        return None
