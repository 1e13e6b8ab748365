"""The texts that a reviewer has read, under golden/: any difference is a failure.

`PYTHONPATH=tests python -m support.goldens` writes them anew; read the diff before it is committed.
"""

from pathlib import Path

from support.goldens import GOLDEN, golden_texts
from trellis.repository.model_config import parse_config


def test_the_configurations_and_commands_are_those_that_were_reviewed(tmp_path: Path) -> None:
    texts = golden_texts(tmp_path)
    on_disk = {str(p.relative_to(GOLDEN)): p.read_text() for p in GOLDEN.rglob("*") if p.is_file()}
    assert sorted(texts) == sorted(on_disk)
    for name, text in texts.items():
        assert text == on_disk[name], f"{name} differs from what was reviewed"


def test_the_reviewed_configurations_parse_with_no_placeholder_left() -> None:
    files = sorted(GOLDEN.rglob("*.pbtxt"))
    assert len(files) == 35
    for file in files:
        assert "${" not in file.read_text()
        assert parse_config(file.read_text()).name == file.stem
