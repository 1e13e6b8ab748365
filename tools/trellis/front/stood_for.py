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
    "preprocessing/id_streams.py": "ea7f64c93e720fb80f7ebb7a8bd23900",
    "preprocessing/kept_tensors.py": "eeab1a6b7d5679c3f1f81c10b12a9e55",
    "preprocessing/model.py": "1222cd30305f552211526138459d7ca0",
    "postprocessing/model.py": "5a4cf5535554413ffad6980b149bea68",
    "postprocessing/streams.py": "0874ce0c90acb25f6b875bab1ec960ff",
    "postprocessing/engine_answers.py": "ef9d77f05cb6c9a919d6e66039c04373",
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
