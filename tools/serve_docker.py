# SPDX-License-Identifier: Apache-2.0
"""Print, and run where it can, the container command that serves a repository."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.run import run
from trellis.cli.serve_docker import main

if __name__ == "__main__":
    run(main)
