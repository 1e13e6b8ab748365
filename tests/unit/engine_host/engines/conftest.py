"""The demo's model as OpenVINO IR, made once."""

from pathlib import Path

import pytest

from support.openvino_ir import write_ir


@pytest.fixture(scope="session")
def openvino_ir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model."""
    return write_ir(tmp_path_factory.mktemp("openvino") / "smollm2-ir")
