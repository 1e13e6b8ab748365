"""Compiles the stand-in backend; `python build.py FOLDER` does it from a shell.

Nothing is linked but libc: Triton's symbols come from the server that loads the library.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
FLAGS = [
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror"),
    *("-fPIC", "-fvisibility=hidden", "-shared", "-pthread"),
]


class StandinBuildError(RuntimeError):
    """There is no C compiler, or it refused the sources; the message has its words."""


def build_standin(target: Path, *, extra_flags: Sequence[str] = ()) -> Path:
    """Compile `target/tensorrtllm/libtriton_tensorrtllm.so` and return its path.

    `target` is (or becomes) a Triton backend directory. A library newer than every source is
    kept as it is. The compiler is `$CC`, else gcc. Raises StandinBuildError.
    """
    library = target / "tensorrtllm" / "libtriton_tensorrtllm.so"
    newest = max(source.stat().st_mtime for source in SOURCES.iterdir())
    if library.exists() and library.stat().st_mtime > newest and not extra_flags:
        return library
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        raise StandinBuildError(f"the stand-in backend needs a C compiler: no {compiler} on PATH")
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, *extra_flags, *map(str, sorted(SOURCES.glob("*.c")))]
    built = subprocess.run(
        [*command, "-o", str(unfinished), "-lm"], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise StandinBuildError(f"{compiler} refused the stand-in backend:\n{built.stderr}")
    unfinished.replace(library)
    return library


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile the stand-in tensorrtllm backend.")
    parser.add_argument("folder", type=Path, help="Triton backend directory to put it into")
    print(build_standin(parser.parse_args().folder))
