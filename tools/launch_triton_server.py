# SPDX-License-Identifier: Apache-2.0
"""Launch tritonserver on a model repository, and stay with it: everything started is stopped."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.launch import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
