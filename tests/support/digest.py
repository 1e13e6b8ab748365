"""Golden ids in little room: twelve letters for each line of the corpus.

>>> digest([1, 22557, 1526])
'892757c764f4'
"""

import hashlib
import json

from support.paths import ROOT

FOLDER = ROOT / "tests" / "unit" / "tokenizers" / "golden"


def digest(ids: list[int]) -> str:
    """A fingerprint of an id sequence."""
    return hashlib.blake2b(json.dumps(list(ids)).encode(), digest_size=6).hexdigest()


def write(name: str, made_with: str, sequences: list[list[int]]) -> None:
    """Keep the ids of the whole corpus as golden/NAME.json."""
    document = {"made_with": made_with, "digests": [digest(ids) for ids in sequences]}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=0) + "\n")


def read(name: str) -> list[str]:
    """The digests of golden/NAME.json, one for each line of the corpus."""
    digests: list[str] = json.loads((FOLDER / f"{name}.json").read_text())["digests"]
    return digests
