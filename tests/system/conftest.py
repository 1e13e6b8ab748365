# SPDX-License-Identifier: Apache-2.0
"""What the tests of a served engine share: its library, driven without Triton."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import lacks
from support.library import Library, open_library


@pytest.fixture(scope="session")
def library(demo_engine: tuple[Path, Path]) -> Iterator[Library]:
    """The library on the demo engine; loading vLLM takes minutes, so there is one of it.

    There is nothing to compare a fake with: tests that ask for it are skipped.
    """
    if reason := lacks("library of its own"):
        pytest.skip(reason)
    made = open_library(*demo_engine)
    yield made
    made.close()
