# SPDX-License-Identifier: Apache-2.0
"""Know before launch that a repository will run: check.py --model_repo triton_model_repo."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.check import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
