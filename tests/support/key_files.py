"""A file of API keys, and the keys themselves."""

from dataclasses import dataclass
from pathlib import Path

from trellis.gateway.access.key_file import KeyEntry, digest, new_key, write_keys


@dataclass
class KeyFile:
    """What `add` and `remove` do is in the file at once; a server reads it when it is told to."""

    path: Path

    def __post_init__(self) -> None:
        self.entries: dict[str, KeyEntry] = {}

    def add(self, name: str, **limits: int) -> str:
        """A new key, which replaces an old one of that name."""
        key = new_key()
        self.entries[name] = KeyEntry(sha256=digest(key), **limits)
        write_keys(self.path, self.entries)
        return key

    def remove(self, name: str) -> None:
        """Nobody of that name any more."""
        del self.entries[name]
        write_keys(self.path, self.entries)
