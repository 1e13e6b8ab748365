# SPDX-License-Identifier: Apache-2.0
"""A repository whose engine misbehaves: code at the end of the engine's file in it."""

from pathlib import Path

from support.engines import ENGINE

# The file of the step, and its class.
FILE, CLASS = (
    ("openvino.py", "OpenVinoEngine")
    if ENGINE == "openvino"
    else ("async_engine.py", "AsyncEngine")
)


def source_of(repo: Path) -> Path:
    """The folder of the engine's code in a repository."""
    return repo / "tensorrt_llm" / "1" / "trellis" / "engine_host" / "engines"


def edit_engine(repo: Path, code: str) -> None:
    """Put code behind that of the engine; `{engine}` in it is its class."""
    source = source_of(repo) / FILE
    text = source.read_text() + code.replace("{engine}", CLASS)
    source.unlink()  # it may be a link to a file of other tests
    source.write_text(text)
