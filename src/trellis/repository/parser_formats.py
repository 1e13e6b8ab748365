# SPDX-License-Identifier: Apache-2.0
"""From what PARSER= says, or a tokenizer's chat templates, to formats of calls and thoughts."""

from dataclasses import dataclass
from pathlib import Path

from trellis.parsers.registry import JOIN, detect, known_formats, load
from trellis.repository.named_file import NamedFiles
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.files import read_config

NONE = "none"


@dataclass(frozen=True)
class ParserFormats:
    """What the parameter `parser` says, and the files of the user's own that it needs."""

    names: str = ""  # think+hermes; "": none
    files: tuple[Path, ...] = ()
    chosen: bool = False  # by the chat template

    def __str__(self) -> str:
        by = ", by its chat template" if self.chosen and self.names else ""
        return f"{self.names or NONE}{by}"


NO_PARSER = ParserFormats()


def find_parser(parser: str, tokenizer_dir: Path) -> ParserFormats:
    """The formats that PARSER= names: one, two joined by `+`, or none.

    "": those that the chat templates of the tokenizer's folder are recognised by. Each name is of
    parsers/, of NAME.py in the current folder, or a path. Raises NamedFileError for an unknown
    name, ParserError for a file that can't be loaded and formats that can't be joined.
    """
    if parser == NONE:
        return NO_PARSER
    if not parser:
        return ParserFormats(_by_template(tokenizer_dir), chosen=True)
    files = NamedFiles("PARSER", "format", known_formats(), f" two joined by {JOIN}, {NONE},")
    parts = [parser] if Path(parser).is_file() else parser.split(JOIN)
    found = [files.find(part) for part in parts]
    load(JOIN.join(str(file or name) for name, file in found))
    return ParserFormats(
        JOIN.join(name for name, _ in found), tuple(file for _, file in found if file is not None)
    )


def _by_template(tokenizer_dir: Path) -> str:
    try:
        templates = read_config(tokenizer_dir).templates
    except TokenizerError:  # `make check` says what is wrong with the folder
        return ""
    return detect("\n".join(template.source for template in templates.values()))
