"""What is read of an OpenVINO IR without loading it."""

import json
from pathlib import Path

import pytest

from support.fake_engines import write_ir_layers
from trellis.engine_files.openvino_ir import (
    MODEL,
    IrError,
    makes_embeddings,
    read_pooling,
    weight_shapes,
)

UP = "model.layers.0.mlp.up_proj"


def test_weights_have_rows_and_columns_however_they_are_multiplied(tmp_path: Path) -> None:
    folder = write_ir_layers(tmp_path / "ir", {UP: (32, 16)})
    assert weight_shapes(folder) == {f"{UP}.weight": (32, 16)}
    file = folder / MODEL
    file.write_text(file.read_text().replace('transpose_b="true"', 'transpose_b="false"'))
    assert weight_shapes(folder) == {f"{UP}.weight": (16, 32)}


def test_layers_without_a_checkpoint_s_name_have_no_weights(tmp_path: Path) -> None:
    folder = write_ir_layers(tmp_path / "ir", {UP: (32, 16)})
    file = folder / MODEL
    file.write_text(file.read_text().replace("__module.", "MatMul_"))
    assert weight_shapes(folder) == {}


@pytest.mark.parametrize("text", ["", "<net>", "no xml", None])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / MODEL).write_text(text)
    with pytest.raises(IrError, match=MODEL):
        weight_shapes(tmp_path)


@pytest.mark.parametrize(
    ("outputs", "embeds"),
    [
        (["last_hidden_state"], True),
        (["logits"], False),
        (["last_hidden_state", "logits"], False),
        ([], False),
    ],
)
def test_a_model_of_hidden_states_alone_makes_embeddings(
    tmp_path: Path, outputs: list[str], embeds: bool
) -> None:
    lines = [f'<port id="0" names="{name}">' for name in outputs]
    (tmp_path / MODEL).write_text("\n".join(lines))
    assert makes_embeddings(tmp_path) == embeds


def test_a_model_that_is_missing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(IrError, match=MODEL):
        makes_embeddings(tmp_path)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_max_tokens": True}, ""),
        (None, ""),
    ],
)
def test_the_pooling_is_what_sentence_transformers_wrote(
    tmp_path: Path, said: dict[str, bool] | None, pooling: str
) -> None:
    if said is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    assert read_pooling(tmp_path) == pooling
