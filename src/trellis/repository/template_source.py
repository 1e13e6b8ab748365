# SPDX-License-Identifier: Apache-2.0
"""Reading the templates of model_repo_src/, and noticing one that was filled in place.

A literal in the place of one placeholder is a fork's right, and worth a word, since what `make
repo` finds out or is told no longer comes there. Without any placeholder it is no template.
"""

import re
from pathlib import Path

from trellis.contract.placeholder import known_placeholders
from trellis.repository.template import TemplateError, placeholders_in

FILE = "config.pbtxt"
LITERAL = re.compile(
    r'^parameters\s*:?\s*\{\s*key:\s*"(\w+)"\s*value:?\s*\{\s*string_value:\s*"([^"$]*)"',
    re.MULTILINE,
)


def read_template(sources: Path, model: str) -> str:
    """The template of a model. Raises TemplateError for one that was filled in place."""
    text = (sources / model / FILE).read_text(encoding="utf-8")
    if not placeholders_in(text):
        name = _name(sources, model)
        raise TemplateError(
            f"{name}: was filled in place: no ${{...}} is left for what this engine needs; restore"
            f" it (git checkout {name}) and fill a copy, or use SET=key:value"
        )
    return text


def own_values(sources: Path, model: str, text: str) -> list[str]:
    """A note on the parameters of a template that are literals where there was a placeholder.

    `model_repo_src/preprocessing/config.pbtxt: max_words is "8" there, whatever ENGINE=, ...`
    """
    known = known_placeholders()
    found = [f'{key} is "{value}"' for key, value in LITERAL.findall(text) if key in known]
    if not found:
        return []
    name = _name(sources, model)
    return [f"{name}: {', '.join(found)} there, whatever ENGINE=, TOKENIZER= and SET= say"]


def _name(sources: Path, model: str) -> str:
    return str(Path(sources.name, model, FILE))
