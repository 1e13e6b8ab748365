# SPDX-License-Identifier: Apache-2.0
"""Soak a server: mixed traffic for a long time, every text checked, then what it still holds."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.run import run
from trellis.cli.soak import main

if __name__ == "__main__":
    run(main)
