"""The ensemble that `make repo` makes, as Triton and the gateway have it."""

from typing import Any

from google.protobuf import json_format

from trellis.gateway.models import Model, read_model
from trellis.repository.model_config import parse_config
from trellis.repository.model_configs import SOURCES


def ensemble_config() -> dict[str, Any]:
    """Its configuration, as Triton gives it."""
    text = (SOURCES / "ensemble" / "config.pbtxt").read_text()
    config = parse_config(text.replace("${triton_max_batch_size}", "64"))
    found: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return found


def ensemble_model(backend: str = "python") -> Model:
    """The model, with an engine of this backend."""
    return read_model(ensemble_config(), lambda _: {"backend": backend})
