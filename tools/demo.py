# SPDX-License-Identifier: Apache-2.0
"""The demo: launch the repository, ask one question, stream another, show how fast, stop."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.demo import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
