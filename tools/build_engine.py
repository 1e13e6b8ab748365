# SPDX-License-Identifier: Apache-2.0
"""Print, and run where it can, the container command that builds an engine (see `make engine`)."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.engine import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
