# SPDX-License-Identifier: Apache-2.0
"""Make a model repository: assemble.py --engine llama-out --tokenizer llama (see `make repo`)."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.repo import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
