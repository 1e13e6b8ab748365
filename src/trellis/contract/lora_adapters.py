# SPDX-License-Identifier: Apache-2.0
"""The parameter `lora_adapters`: names of LoRA adapters, and the folder of each."""

import re
from collections.abc import Mapping

PARAMETER = "lora_adapters"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def parse_adapters(text: str) -> dict[str, str]:
    """`name=folder,name=folder` to a dict. Raises ValueError for what is not of that form.

    >>> parse_adapters("polite=/adapters/a,short=b")
    {'polite': '/adapters/a', 'short': 'b'}
    """
    adapters: dict[str, str] = {}
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, equals, folder = entry.partition("=")
        if not (NAME.fullmatch(name) and equals and folder):
            raise ValueError(
                f"{PARAMETER}: {entry!r} is not name=folder; a name has letters, digits and . _ -,"
                " at most 64"
            )
        if name in adapters:
            raise ValueError(f"{PARAMETER}: {name} is given twice; give it once")
        adapters[name] = folder
    return adapters


def adapters_text(adapters: Mapping[str, str]) -> str:
    """A dict of folders as `parse_adapters` reads it."""
    return ",".join(f"{name}={folder}" for name, folder in adapters.items())
