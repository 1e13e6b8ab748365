# SPDX-License-Identifier: Apache-2.0
"""Print, and run where it can, the container command that builds an engine (see `make engine`)."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trellis.contract.containers import installed_runtime
from trellis.docker.commands import Build, build_commands, newest_release, run_or_print
from trellis.errors import TrellisError


def main(
    checkpoint: Annotated[Path, typer.Option(help="Hugging Face checkpoint")],
    out: Annotated[Path, typer.Option(help="folder of the engine to be")],
    dtype: str = "bfloat16",
    tp: Annotated[int, typer.Option(min=1)] = 1,
    pp: Annotated[int, typer.Option(min=1)] = 1,
    trtllm: Annotated[str, typer.Option(help="release; default this container's, or newest")] = "",
    model: Annotated[str, typer.Option(help="folder in TensorRT-LLM's examples")] = "llama",
    source: Annotated[Path, typer.Option(help="checkout of that release")] = Path("TensorRT-LLM"),
    image: Annotated[str, typer.Option(help="container, if it should be another")] = "",
    max_batch_size: Annotated[int, typer.Option("--max_batch_size", min=1)] = 8,
    max_input_len: Annotated[int, typer.Option("--max_input_len", min=1)] = 2048,
    max_output_len: Annotated[int, typer.Option("--max_output_len", min=1)] = 512,
    run: Annotated[str, typer.Option(help="1 runs it, 0 does not")] = "",
) -> None:
    """The command for a release: build.py for 0.5 to 0.7, trtllm-build from 0.8."""
    build = Build(
        checkpoint, out, dtype, tp, pp, max_batch_size, max_input_len, max_output_len, model, source
    )
    if not checkpoint.is_dir():
        print(f"build_engine: CHECKPOINT={checkpoint}: no such folder", file=sys.stderr)
        raise typer.Exit(1)
    release = trtllm or installed_runtime().version or newest_release()
    try:
        commands = build_commands(build, release, image)
    except TrellisError as error:
        print(f"build_engine: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    raise typer.Exit(run_or_print(commands, run))
