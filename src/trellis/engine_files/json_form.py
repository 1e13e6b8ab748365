# SPDX-License-Identifier: Apache-2.0
"""What a JSON file of an engine has to hold, written down as a form and checked against it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MOST = 2**31 - 1  # more is no size of a model
SHOWN = 64  # characters at most of a wrong value
Size = Annotated[int, Field(ge=1, le=MOST)]


class Form(BaseModel):
    """An object of JSON: its keys with their types; keys that it does not have are left alone."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


Checked = TypeVar("Checked", bound=Form)


def read_form(path: Path, form: type[Checked], data: Mapping[str, Any]) -> Checked:
    """The values of a file that was read. Raises ValueError naming file, key, value and remedy."""
    try:
        return form.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{path}: {_words(error)}; correct it, or copy the file again") from error


def _words(error: ValidationError) -> str:
    """pydantic's complaints, one after another: `builder_config.num_heads: Field required`."""
    return "; ".join(_complaint(item["loc"], item["msg"], item["input"]) for item in error.errors())


def _complaint(place: tuple[int | str, ...], message: str, found: Any) -> str:
    text = f"{'.'.join(map(str, place))}: {message}"
    if isinstance(found, Mapping):  # the key is missing
        return text
    said = repr(found)
    return f"{text}, not {said if len(said) <= SHOWN else said[: SHOWN - 3] + '...'}"
