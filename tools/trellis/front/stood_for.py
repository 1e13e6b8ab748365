"""The files that the front stands for, as they were when it was written to do the same.

Over HTTP neither `preprocessing/1/model.py` nor `postprocessing` is asked. A repository where one
of these files is another does something that the front does not know, so its models are asked as
ever. All else of the plugins (tokenizers, prompts.py, engine_inputs.py ...) the front itself runs.

After a change to one of them: have the front do the same, then put in the digest that the test
tests/tools/test_front_stood_for.py prints.
"""

import hashlib
from pathlib import Path

DIGESTS = {
    "preprocessing/id_streams.py": "a266a2fa2cd346f36219274c5d91b3eb",
    "preprocessing/kept_tensors.py": "eeab1a6b7d5679c3f1f81c10b12a9e55",
    "preprocessing/model.py": "77f52eeea3576c9a550b9424da431640",
    "postprocessing/model.py": "af27487d0f524d1ca69a6d39e9f83800",
    "postprocessing/streams.py": "0874ce0c90acb25f6b875bab1ec960ff",
    "postprocessing/engine_answers.py": "851068b4777ff6c301a06f9a7badd044",
    "postprocessing/text_tensors.py": "ea51af008a4bdd164c913442d6bdd137",
}


def digest(file: Path) -> str:
    """Of a file's text, whatever its line ends are."""
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:32]


def changed(step: str, folder: Path) -> list[str]:
    """The files in a model's version folder that are not those; `step`: whose part it has."""
    return [
        name
        for name, wanted in DIGESTS.items()
        if name.startswith(f"{step}/") and digest(folder / name.removeprefix(f"{step}/")) != wanted
    ]
