# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters in OpenVINO's pipeline, which applies one at a time, to all that runs in it.

The library heeds the adapters of a request in `generate` alone, not in `add_request`, and applies
them to the whole batch. So a prompt of one token through `generate` changes the adapter of an
empty pipeline; `openvino_queue.py` has who waits for that.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from trellis.engine_host.engines.lora import Adapter

NONE = ""  # the name of no adapter


class OpenVinoAdapters:
    """The adapters of one pipeline."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        """Reads the files. Raises RuntimeError for one that the library cannot read."""
        self._loaded = {
            name: (genai.Adapter(str(adapter.weights)), adapter.scale)
            for name, adapter in adapters.items()
        }
        self.applied: str | None = NONE if not adapters else None  # None: not known yet

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._loaded)

    @property
    def properties(self) -> dict[str, Any]:
        """What the pipeline is made with."""
        loaded = list(self._loaded.values())
        return {"adapters": genai.AdapterConfig(loaded)} if loaded else {}

    def apply(self, name: str, pipeline: Any, config: Any) -> None:
        """Have an idle pipeline apply an adapter; `config`: of a request for one token."""
        if name == self.applied:
            return
        self.applied = None  # should the library fail midway
        config.adapters = genai.AdapterConfig([self._loaded[name]] if name else [])
        pipeline.generate([openvino.Tensor(np.zeros((1, 1), np.int64))], [config])
        self.applied = name
