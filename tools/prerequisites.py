# SPDX-License-Identifier: Apache-2.0
"""Whether .venv can be made here, and what to install if not: python3 prerequisites.py [--tests].

With `--tests` also whether the tests can run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from trellis.server.prerequisites import VERSIONS, lacks, python_version, remedy


def main() -> int:
    """Say all that is missing and the line that installs it; 1 if something is needed."""
    oldest, newest = VERSIONS
    if not oldest <= sys.version_info[:2] <= newest:
        wanted = " to ".join(".".join(map(str, version)) for version in VERSIONS)
        print(f"Python {wanted} is needed, {sys.executable} is {python_version()}; set PYTHON=")
        return 1
    found = lacks(tests="--tests" in sys.argv[1:])
    if not found:
        return 0
    print(f"missing here: {', '.join(lack.what for lack in found)}")
    print(f"  {remedy(found)}")
    return int(any(lack.needed for lack in found))


if __name__ == "__main__":
    sys.exit(main())
