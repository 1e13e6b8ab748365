"""pytest, and what failed in it once more by itself; `ci/` runs its parts so.

    .venv/bin/python tests/support/rerun.py tests/system -n 2 --dist loadfile

Two files run at once on two cores, and real servers with them: a test that waits for a time may
fail there for want of a processor. Its second run has the machine to itself, and counts. More than
MOST failures are no accident, and stay.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MOST = 5
FAILED = 1  # pytest's exit status: tests ran, and some failed


def main(arguments: Sequence[str]) -> int:
    """pytest's exit status, of the second run if there is one."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
        status = subprocess.call(command)
        failed = _failed(Path(cache))
        if status != FAILED or not 0 < len(failed) <= MOST:
            return status
        print(f"\nonce more by themselves: {', '.join(failed)}", flush=True)
        alone = ["--last-failed"]
        if "-n" in arguments:
            alone += ["-n", "0"]
        if any(one.startswith("--cov") for one in arguments):
            alone.append("--no-cov")  # what the first run wrote stays
        return subprocess.call([*command, *alone])


def _failed(cache: Path) -> list[str]:
    """The tests that failed, by what pytest keeps of a run."""
    kept = cache / "v" / "cache" / "lastfailed"
    return sorted(json.loads(kept.read_text())) if kept.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
