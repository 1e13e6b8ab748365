# SPDX-License-Identifier: Apache-2.0
"""Lay out the demo engine and its tokenizer: lay_out_demo.py smollm2-out smollm2-tokenizer."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trellis.demo.engine import find_demo_model, lay_out
from trellis.engine_files.gguf import GgufError


def main(
    engine: Annotated[Path, typer.Argument(help="engine folder to write")] = Path("smollm2-out"),
    tokenizer: Annotated[Path, typer.Argument(help="tokenizer folder to write")] = Path(
        "smollm2-tokenizer"
    ),
) -> None:
    """Write both folders; what is already there and equal is left as it is."""
    try:
        lay_out(find_demo_model(), engine, tokenizer)
    except GgufError as error:
        print(f"lay_out_demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
