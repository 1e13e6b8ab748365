# SPDX-License-Identifier: Apache-2.0
"""The embedded Triton's environment: the stub is given the Python that it is to serve with."""

import os
from pathlib import Path

import pytest

from trellis.server import triton
from trellis.server.triton import Triton


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Triton:
    """A server beside which lies nothing yet, on a Python 3.13 with a library of its own."""
    (tmp_path / "site" / triton.BUNDLED_LIBRARIES).mkdir(parents=True)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libpython3.13.so.1.0").touch()
    monkeypatch.setattr(triton, "python_version", lambda: "3.13")
    monkeypatch.setattr(triton, "find_libpython", lambda: tmp_path / "lib")
    return Triton(
        tmp_path / "tritonserver", tmp_path / "site", {"LD_LIBRARY_PATH": "/as/it/was", "A": "b"}
    )


def test_a_stub_bound_to_a_libpython_of_its_own_gets_this_pythons(
    embedded: Triton, tmp_path: Path
) -> None:
    assert embedded.site_packages is not None
    bundled = embedded.site_packages / triton.BUNDLED_LIBRARIES
    (bundled / "libpython3-419a3a08.13.so.1.0").touch()
    (bundled / "libpython3-12345678.12.so.1.0").touch()
    (tmp_path / "backends").mkdir()
    environment = embedded.running_in(tmp_path / "backends")
    first, _, rest = environment["LD_LIBRARY_PATH"].partition(os.pathsep)
    assert rest == "/as/it/was"
    assert environment["A"] == "b"
    assert [path.name for path in Path(first).iterdir()] == ["libpython3-419a3a08.13.so.1.0"]
    (alias,) = Path(first).iterdir()
    assert alias.resolve() == tmp_path / "lib" / "libpython3.13.so.1.0"


def test_a_stub_bound_to_the_systems_needs_nothing(embedded: Triton, tmp_path: Path) -> None:
    assert embedded.running_in(tmp_path) == embedded.environment
    assert Triton(Path("/opt/tritonserver/bin/tritonserver")).running_in(tmp_path) == {}
