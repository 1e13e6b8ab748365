# SPDX-License-Identifier: Apache-2.0
"""Finding a Triton server: the container's, or the one inside the package `nvidia-pytriton`."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trellis.data_folders import binaries_remedy
from trellis.errors import TrellisError
from trellis.server.numpy2_bridge import install_python_backend
from trellis.server.prerequisites import (
    CONTAINER_SERVER,
    Lack,
    find_libpython,
    python_version,
    remedy,
)

MIN_GLIBC = (2, 35)
BUNDLED_LIBRARIES = "nvidia_pytriton.libs"


class TritonNotFound(TrellisError, RuntimeError):
    """No server can be started here; the message says what is missing and how to get it."""


@dataclass(frozen=True)
class Triton:
    """A tritonserver binary and what it needs to run.

    `site_packages` is set for the embedded server, whose backends have to be laid out first.
    """

    binary: Path
    site_packages: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def lay_out_backends(self, folder: Path) -> list[str]:
        """Prepare the backend directory in `folder`; the server arguments that point at it."""
        if self.site_packages is None:
            return []
        numpy_major = int(importlib.metadata.version("numpy").split(".")[0])
        install_python_backend(folder, self.site_packages, python_version(), numpy_major)
        return [f"--backend-directory={folder}"]

    def running_in(self, folder: Path) -> dict[str, str]:
        """The environment to run it with, once `lay_out_backends(folder)` was done.

        nvidia-pytriton's stub for Python 3.13 is linked to a libpython of its own, which misses
        modules of the standard library that Debian's has built in: it gets this Python's.
        """
        if self.site_packages is None:
            return self.environment
        own = f"libpython3-*{python_version().removeprefix('3')}.so*"
        bundled = sorted((self.site_packages / BUNDLED_LIBRARIES).glob(own))
        library = find_libpython()
        if not bundled or library is None:
            return self.environment
        names = sorted(library.glob(f"libpython{python_version()}.so*"))
        aliases = folder / "libpython"
        aliases.mkdir(exist_ok=True)
        for file in bundled:
            (aliases / file.name).symlink_to(names[-1])
        path = os.pathsep.join([str(aliases), self.environment["LD_LIBRARY_PATH"]])
        return {**self.environment, "LD_LIBRARY_PATH": path}


def find_triton(given: str = "") -> Triton:
    """The server to run. Raises TritonNotFound with what to install."""
    if given:
        path = Path(given)
        if not path.is_file():
            raise TritonNotFound(f"--tritonserver {given}: no such file")
        return Triton(path)
    if CONTAINER_SERVER.is_file():
        return Triton(CONTAINER_SERVER)
    return _embedded()


def serving_python(given: str = "") -> str:
    """The interpreter whose packages the Python models import.

    Triton's stub embeds Python and finds its packages by the first `python3` on PATH; for the
    embedded server that is this interpreter.
    """
    if (Path(given) if given else CONTAINER_SERVER).is_file():
        return shutil.which("python3") or sys.executable
    return sys.executable


def _embedded() -> Triton:
    site_packages = _site_packages()
    binary = site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if not binary.is_file():
        raise TritonNotFound(
            f"{binary} is missing; reinstall nvidia-pytriton: {binaries_remedy('serve')}"
        )
    _check_glibc()
    libraries = [site_packages / BUNDLED_LIBRARIES, _libpython_folder()]
    inherited = os.environ.get("LD_LIBRARY_PATH")
    path = os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])])
    # The stub embeds Python and finds its packages by the first `python3` on PATH.
    search = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    return Triton(binary, site_packages, {"LD_LIBRARY_PATH": path, "PATH": search})


def _site_packages() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise TritonNotFound(
            f"no Triton server: neither {CONTAINER_SERVER} nor the package nvidia-pytriton is here;"
            f" run {binaries_remedy('serve')}, or run inside an NVIDIA Triton container"
        )
    return Path(next(iter(spec.submodule_search_locations))).parent


def _check_glibc() -> None:
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "unknown 0").partition(" ")
    found = tuple(int(part) for part in version.split(".")[:2])
    if name != "glibc" or found < MIN_GLIBC:
        raise TritonNotFound(
            f"the embedded Triton needs glibc 2.35 or newer, found {name} {version};"
            " use Debian 12, Ubuntu 22.04 or newer, or an NVIDIA Triton container"
        )


def _libpython_folder() -> Path:
    """Where libpython3.X.so is; the stub cannot start without it."""
    folder = find_libpython()
    if folder is None:
        lack = Lack(f"libpython{python_version()}.so", f"libpython{python_version()}")
        raise TritonNotFound(
            f"this Python ({sys.base_prefix}) has no shared library ({lack.what}), which Triton's"
            f" Python backend needs; {remedy([lack])}"
        )
    return folder
