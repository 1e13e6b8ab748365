"""A model's configuration as a running Triton shows it, of a repository without one."""

from pathlib import Path
from typing import Any

from google.protobuf import json_format

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
