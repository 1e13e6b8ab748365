"""Lay out NVIDIA's clients, which are files of repositories and no packages.

    python fetch_sources.py .clients/sources                 # all of sources.json
    python fetch_sources.py .clients/sources --only core     # one of them
    python fetch_sources.py --record server=clone            # write sources.json anew from a clone

Each file is the one of that tag or commit, byte for byte: its SHA-256 is in sources.json beside
this script, and another file is an error. They come from GitHub, or from a clone or folder that an
environment variable names: TRTLLM_BACKEND, TRITON_SERVER, TRITON_CORE. Where neither is there,
`<folder>/<name>.missing` says why, and the clients that need it are not run.
Python 3.10 or newer, standard library only.
"""

import argparse
import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).with_name("sources.json")
RAW = "https://raw.githubusercontent.com"
SECONDS = 20  # that one file may take


class Unreachable(OSError):
    """The files cannot be had here; the message says why."""


@dataclass(frozen=True)
class Source:
    """Files of one repository at one tag or commit."""

    name: str
    repository: str
    """'owner/name' on GitHub."""
    ref: str
    variable: str
    """Environment variable that may name a clone or a folder."""
    files: dict[str, str]
    """Path in the repository -> SHA-256."""


def read_sources(path: Path = SOURCES) -> list[Source]:
    """All that is fetched. Raises ValueError for a file that is no such list."""
    return [Source(**entry) for entry in json.loads(path.read_text())]


def lay_out(source: Source, target: Path) -> None:
    """Write the files of `source` below `target`. Raises Unreachable, or ValueError."""
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda path: _content(source, path, target), source.files))
    for (path, expected), content in zip(source.files.items(), contents, strict=True):
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise ValueError(f"{source.name}: {path} is not that of {source.ref}: SHA-256 {found}")
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _content(source: Source, path: str, target: Path) -> bytes:
    laid_out = target / path
    if laid_out.is_file():
        return laid_out.read_bytes()
    if given := os.environ.get(source.variable, ""):
        return read_local(Path(given), source.ref, path)
    url = f"{RAW}/{source.repository}/{source.ref}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            content: bytes = response.read()
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"GitHub is not reachable ({reason}), {source.variable} is not set"
        ) from None
    return content


def read_local(folder: Path, ref: str, path: str) -> bytes:
    """A file of a clone (with or without a work tree) at `ref`, or of a plain folder."""
    for place in (folder / ".git", folder):
        if (place / "objects").is_dir():
            command = ["git", f"--git-dir={place}", "show", f"{ref}:{path}"]
            done = subprocess.run(command, capture_output=True)
            if done.returncode == 0:
                return done.stdout
    if not (folder / path).is_file():
        raise Unreachable(f"{folder} has no {path} of {ref}")
    return (folder / path).read_bytes()


def record(pairs: list[str]) -> None:
    """Write the SHA-256 of every file anew, from the clones that are given."""
    clones = dict(pair.split("=", 1) for pair in pairs)
    sources = read_sources()
    for source in sources:
        for path in source.files if source.name in clones else ():
            content = read_local(Path(clones[source.name]), source.ref, path)
            source.files[path] = hashlib.sha256(content).hexdigest()
    SOURCES.write_text(json.dumps([vars(source) for source in sources], indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", help="names, with commas between")
    parser.add_argument("--record", nargs="+", metavar="NAME=CLONE")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return
    if options.folder is None:
        parser.error("give a folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    for source in read_sources():
        if options.only and source.name not in options.only.split(","):
            continue
        missing = options.folder / f"{source.name}.missing"
        missing.unlink(missing_ok=True)
        try:
            lay_out(source, options.folder / source.name)
            print(f"{source.name}: {len(source.files)} files of {source.ref}")
        except Unreachable as error:
            missing.write_text(str(error))
            print(f"{source.name}: not fetched: {error}")


if __name__ == "__main__":
    main()
