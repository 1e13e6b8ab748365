# SPDX-License-Identifier: Apache-2.0
"""Files that are large, engines and weights: whole, as `make repo` put them there.

A copy that was cut short is what a library answers with a crash instead of a message.
"""

import re
from collections.abc import Iterator

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository
from trellis.repository.manifest import MANIFEST, read_manifest

SIZE = re.compile(r"(?:symlink:)?(\d+):\d+")  # how the manifest notes what is too large to hash


def check_large_files(repository: Repository) -> Iterator[Check]:
    """One failing check for each that has another size, or one good one for all."""
    if not (repository.path / MANIFEST).is_file():
        return  # filled by hand: nothing is known of its files
    sizes = {
        name: int(match[1])
        for name, noted in read_manifest(repository.path).items()
        if (match := SIZE.fullmatch(noted))
    }
    wrong = False
    for name, size in sizes.items():
        file = repository.path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            wrong = True
            yield Check(
                "large files",
                f"{name}: {'missing' if found is None else f'{found} bytes'}",
                f"{size} bytes, as it was made",
                False,
                "copy the repository again, or `make repo`",
            )
    if sizes and not wrong:
        yield Check("large files", f"{len(sizes)}, whole", "their sizes as made", True)
