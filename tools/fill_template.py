# SPDX-License-Identifier: Apache-2.0
"""Fill the placeholders of a config.pbtxt: fill_template.py -i FILE key:value,key:value."""

import _venv  # noqa: F401  (first: it may go on in .venv)

from trellis.cli.fill import main
from trellis.cli.run import run

if __name__ == "__main__":
    run(main)
