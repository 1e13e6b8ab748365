# SPDX-License-Identifier: Apache-2.0
"""config.pbtxt as what it is: Triton's ModelConfig protobuf, read by protobuf's own parser."""

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trellis.errors import TrellisError


class ConfigTextError(TrellisError, ValueError):
    """Text that is no ModelConfig; the message has the line and what is wrong there."""


def parse_config(text: str, name: str = "config.pbtxt") -> ModelConfig:
    """Text to ModelConfig. Raises ConfigTextError naming file, line and cause."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise ConfigTextError(f"{name}: {error}") from error


def parameters(config: ModelConfig) -> dict[str, str]:
    """The parameters as plain strings."""
    return {key: value.string_value for key, value in config.parameters.items()}
