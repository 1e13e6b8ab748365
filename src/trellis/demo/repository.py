# SPDX-License-Identifier: Apache-2.0
"""The demo's repository, with its engine and tokenizer beside it."""

from collections.abc import Mapping
from pathlib import Path

from trellis.demo.engine import find_demo_model, lay_out
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.repository.parser_formats import find_parser

PARSER = "hermes"  # the chat template of the demo's model says nothing of tools


def make_repository(folder: Path, settings: Mapping[str, str] | None = None) -> Path:
    """Make smollm2-out, smollm2-tokenizer and, of both, smollm2-repo in `folder`; the last of them.

    What is there and equal stays. `settings`: placeholders set by hand. Raises TrellisError if a
    package or a place is missing for it.
    """
    names = ("smollm2-out", "smollm2-tokenizer", "smollm2-repo")
    engine, tokenizer, repository = (folder / name for name in names)
    lay_out(find_demo_model(), engine, tokenizer)
    plan = Plan(
        read_engine(engine),
        "gpt2",
        tokenizer,
        parser=find_parser(PARSER, tokenizer),
        settings=settings or {},
    )
    assemble(plan, repository)
    return repository
