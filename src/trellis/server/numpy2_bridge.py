# SPDX-License-Identifier: Apache-2.0
"""Make the embedded Triton's Python backend work with numpy 2.

Why
---
PyPI's `nvidia-pytriton` 0.7.0 carries, for each Python version, the program that runs a Python
model: `triton_python_backend_stub`. It was compiled with a pybind11 older than 2.12, which knows
only numpy 1 and reads the size of an array's element from a fixed place in numpy's dtype object.
numpy 2 moved that field. From numpy's `ndarraytypes.h` (x86-64, offsets in bytes):

    numpy 1, `PyArray_Descr`                              numpy 2, `_PyArray_DescrNumPy2`
     0  PyObject_HEAD                                     0  PyObject_HEAD
    16  PyTypeObject *typeobj                            16  PyTypeObject *typeobj
    24  char kind, type, byteorder, flags                24  char kind, type, byteorder, (unused)
    28  int type_num                                     28  int type_num
    32  int elsize                                       32  npy_uint64 flags
    36  int alignment                                    40  npy_intp elsize

pybind11 before 2.12 declares the left one (`PyArrayDescr_Proxy` in `pybind11/numpy.h`). Under
numpy 2 it reads `flags` for `elsize`: 0 for the plain types. Every element of an input then
aliases the first, and every output is 0 bytes long. Python 3.13 has no numpy 1, so there the
server would be of no use at all.

This is all that is wrong. The stub calls six entries of numpy's C API (DescrFromType 45,
FromAny 69, NewCopy 85, NewFromDescr 94, DescrConverter 174, SetBaseObject 282), and those have
kept their places; the array object itself (`PyArray_Proxy`) has not changed; and numpy keeps
`numpy.core.multiarray._ARRAY_API` importable for exactly this pybind11.

What
----
The stub reads `elsize` at five places, and nowhere else:

- four times as the inlined `array::nbytes()`, in the two constructors `PbTensor::PbTensor(name,
  py::array&[, dtype])` (python_backend `src/pb_tensor.cc`): twice each, for numbers and for BYTES;
- once in `pybind11::array::array(dtype, shape, strides, ptr, base)`, for the default strides.

`install_python_backend` writes the launcher's own copy of the stub with these five instructions
reading from offset 40. That is what a compiler would have produced for numpy 2's header, so it is
as safe as a recompiled stub, needs no compiler, costs nothing at run time, and leaves the installed
package alone. Working around it from Python could not be as sound: the stub has copied an input
through the wrong strides before Python sees it, and takes the length of a BYTES output from the
dtype object whatever Python does.

A stub is changed only if its SHA-256 is in the table below and each instruction is the expected
one; any other is refused. With numpy 1 the stub is copied as it is.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from trellis.errors import TrellisError

STUB = "triton_python_backend_stub"

# The two instructions, by encoding: what reads an int at 32, and what replaces it.
# The first gets all 64 bits of the wider field. The second goes on to a 32-bit slot: there the
# dtypes are only BOOL, the integers and the floats, of 8 bytes at most.
_NBYTES = (b"\x48\x63\x40\x20", b"\x48\x8b\x40\x28")  # movslq 32(%rax),%rax -> mov 40(%rax),%rax
_STRIDES = (b"\x8b\x40\x20", b"\x8b\x40\x28")  # mov 32(%rax),%eax -> mov 40(%rax),%eax


class Numpy2Error(TrellisError, RuntimeError):
    """The Python backend cannot be made to work with this numpy; the message says what to do."""


@dataclass(frozen=True)
class _Stub:
    python: str
    nbytes: tuple[int, int, int, int]
    strides: int


# By SHA-256, the stubs of nvidia-pytriton 0.7.0 for x86-64 and the file offsets where each reads
# `elsize`.
_KNOWN: dict[str, _Stub] = {
    "251c532e0af9c057d50784cc933fd52f304163e238d51e74c0ffc1c1790188b5": _Stub(
        "3.10", (0xA4E69, 0xA50AE, 0xA5821, 0xA5A86), 0xAB4B9
    ),
    "a302adf6396501ac139da06f965aea1bf61929c99bf799f6b8797e071cd268f4": _Stub(
        "3.11", (0xA4BF9, 0xA4E3E, 0xA55B1, 0xA5816), 0xAB249
    ),
    "41a7758c6f44520b846e90a5bf8b063f99aee01698c3e32113ce352fe8369921": _Stub(
        "3.12", (0xA6C71, 0xA6E8D, 0xA7661, 0xA78A6), 0xACA29
    ),
    "7b701b4b4bc01ca7af0350eaffa4f2aed92f02b465b3494a265059e4d3ca6cf8": _Stub(
        "3.13", (0xA6C71, 0xA6E8D, 0xA7661, 0xA78A6), 0xACA29
    ),
}


def stub_for_numpy_2(stub: bytes) -> bytes:
    """Return the stub `stub` with its five reads of a dtype's size as numpy 2 lays it out."""
    known = _KNOWN.get(hashlib.sha256(stub).hexdigest())
    if known is None:
        raise Numpy2Error(
            f"this {STUB} is not one of nvidia-pytriton 0.7.0 for x86-64, and only those "
            "are known to work with numpy 2: install nvidia-pytriton==0.7.0, or use a Python "
            "that has numpy 1 (3.10 to 3.12) with 'numpy<2'"
        )
    patched = bytearray(stub)
    for offset, (old, new) in [(known.strides, _STRIDES), *((at, _NBYTES) for at in known.nbytes)]:
        if patched[offset : offset + len(old)] != old:
            raise Numpy2Error(f"{STUB}: unexpected code at {offset:#x}")
        patched[offset : offset + len(new)] = new
    return bytes(patched)


def install_python_backend(
    target: Path, site_packages: Path, python_version: str, numpy_major: int
) -> Path:
    """Lay out nvidia-pytriton's Python backend under `target`, for `--backend-directory target`.

    `python_version` is like "3.13" and `numpy_major` the first number of the version of the numpy
    that the models will import. Returns the folder `target`/python, which holds:

        libtriton_python.so                 as installed
        triton_python_backend_utils.py      as installed
        triton_python_backend_stub          of that Python, made fit for that numpy
    """
    if numpy_major > 2:
        raise Numpy2Error(
            f"the embedded Triton works with numpy 1 and 2, not {numpy_major}: install 'numpy<3'"
        )
    server = site_packages / "pytriton" / "tritonserver"
    source = server / "python_backend_stubs" / python_version / STUB
    if not source.is_file():
        raise Numpy2Error(f"nvidia-pytriton in {site_packages} has no {STUB} for {python_version}")
    stub = source.read_bytes()
    if numpy_major == 2:
        stub = stub_for_numpy_2(stub)
    backend = target / "python"
    backend.mkdir(parents=True, exist_ok=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        _write(backend / name, (server / "backends" / "python" / name).read_bytes(), 0o644)
    _write(backend / STUB, stub, 0o755)
    return backend


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put a whole new file in place: one that a running server has open or mapped stays as is."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
