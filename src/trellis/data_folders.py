# SPDX-License-Identifier: Apache-2.0
"""Where the model sources and the tokenizer_types lie, however the package came here."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder `model_repo_src` or `tokenizers`.

    Inside the package in a wheel and in an assembled repository, at the top of a checkout.
    """
    inside = _PACKAGE / "data" / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name
