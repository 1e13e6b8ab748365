"""A repository's models as a running Triton shows them and the gateway reads them, without one."""

from pathlib import Path
from typing import Any

from google.protobuf import json_format

from trellis.gateway.models import Model, read_model
from trellis.gateway.plugin_loading import load_plugins
from trellis.repository.manifest import wired_as_made
from trellis.repository.model_config import parse_config


def config_of(repository: Path, name: str) -> dict[str, Any]:
    """As Triton shows it: every field, 64-bit numbers as strings or numbers."""
    file = repository / name / "config.pbtxt"
    if not file.exists():
        raise FileNotFoundError(name)
    made: dict[str, Any] = json_format.MessageToDict(
        parse_config(file.read_text()),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    return made


def model_of(repository: Path, name: str = "ensemble", /, *more: Any, **changes: Any) -> Model:
    """An ensemble as the gateway reads it.

    `more`: what else `read_model` takes. `changes`: members of its configuration that are others.
    """
    return read_model(
        config_of(repository, name) | changes,
        lambda part: config_of(repository, part),
        lambda before, last: load_plugins(before, last, repository),
        lambda config: wired_as_made(repository, config),
        *more,
    )
