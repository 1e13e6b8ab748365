# SPDX-License-Identifier: Apache-2.0
"""The process that keeps the library's workers on a host above the first, which has no server."""

import json
import logging
import os
import signal
from pathlib import Path
from typing import NoReturn

from trellis.engine_host.engine_settings import read_engine_settings, show_gpus
from trellis.engine_host.engines.keeper import keep
from trellis.pipeline.model_settings import ModelSettings

log = logging.getLogger("trellis.engine")


def main(folder: str, about: str) -> NoReturn:
    """Run the workers until they end; that is always a failure, for the launcher kills them.

    `folder` is the model's version folder; `about` is its configuration, as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        _run(Path(folder), **json.loads(about))
        log.error("the workers of this host ended")
    except BaseException as error:
        log.error("the workers of this host ended: %s", error, exc_info=True)
    logging.shutdown()
    os._exit(1)


def _run(folder: Path, engine_type: str, parameters: dict[str, str], max_batch_size: int) -> None:
    if engine_type != "vllm":
        raise ValueError(f"the engine {engine_type} has no workers on hosts above the first")
    settings = ModelSettings("tensorrt_llm", folder, parameters, {}, max_batch_size)
    show_gpus(settings)
    from trellis.engine_host.engines.vllm import run_workers

    run_workers(read_engine_settings(settings))
