# SPDX-License-Identifier: Apache-2.0
"""A repository of the demo's engine, as TEST_ENGINE has it, for programs that are no tests.

python -m support.demo_repo FOLDER    prints the path of the repository
"""

import sys
from pathlib import Path

from support.engines import lay_out_engine
from support.serving import assemble_demo
from trellis.cli.soak import SETTINGS

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(assemble_demo(lay_out_engine(folder), folder, SETTINGS))
