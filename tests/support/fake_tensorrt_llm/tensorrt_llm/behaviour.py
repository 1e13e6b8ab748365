"""What the fake was told to do, by the environment: which release it is, timing, scripts."""

import json
import os
from dataclasses import dataclass, field

VARIABLE = "FAKE_TENSORRT_LLM"
DESCRIPTORS = "FAKE_TENSORRT_LLM_PIPES"  # the worker's ends: what it reads, what it writes
VERSIONS = ("1.0.0", "1.2.1", "1.4.0rc1")


@dataclass(frozen=True)
class Script:
    """What happens to a prompt whose last id is `after`."""

    after: int
    ids: tuple[int, ...] = ()  # in the place of the model's; then the end id
    at: int = 0  # ids before the event
    event: str = ""  # error, fatal, die, hang, timeout or odd_finish


@dataclass(frozen=True)
class Behaviour:
    """One way to behave."""

    version: str = "1.2.1"
    load_seconds: float = 1.0
    step_seconds: float = 0.002
    shutdown_blocks: bool = False
    orphans: bool = False  # workers stay when the process that started them is gone
    without_log_probs: bool = False  # tell the likeliest id's alone
    repeats: bool = False  # go on with what was said before
    knows: tuple[tuple[int, ...], ...] = ()  # texts that it goes on with, too; with `repeats`
    scripts: tuple[Script, ...] = field(default=())

    @property
    def numbers(self) -> tuple[int, ...]:
        """(1, 2) for 1.2.1."""
        return tuple(int(part) for part in self.version.split(".")[:2])

    @property
    def late(self) -> bool:
        """Whether it is the release with one sampler, and all that came with it."""
        return self.numbers >= (1, 4)


def read() -> Behaviour:
    """Of the environment."""
    values = json.loads(os.environ.get(VARIABLE, "{}"))
    scripts = tuple(
        Script(**{**script, "ids": tuple(script.get("ids", ()))})
        for script in values.pop("scripts", ())
    )
    knows = tuple(tuple(text) for text in values.pop("knows", ()))
    behaviour = Behaviour(**values, scripts=scripts, knows=knows)
    assert behaviour.version in VERSIONS, behaviour.version
    return behaviour


BEHAVIOUR = read()  # its version is that of the package's classes; the rest may be read anew
