# SPDX-License-Identifier: Apache-2.0
"""What may stand for each `${name}` of a template: type, default, meaning, and its history."""

import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trellis.errors import TrellisError

INT64_MAX = 2**63 - 1


class PlaceholderError(TrellisError, ValueError):
    """A value of the wrong type; the message names the key, the value and what fits."""


# Names that a later release gave to the same thing, and the release that did.
RENAMED = {"max_kv_cache_length": ("max_attention_window_size", "0.7")}
# What later releases no longer have: the last one that did, and what holds since.
DROPPED = {
    "max_num_sequences": ("0.7", "triton_max_batch_size decides"),
    "enable_trt_overlap": ("0.9", "the runtime decides"),
}

# Keys of published templates that mean nothing in Trellis' own, where there is more to say.
WITHOUT_EFFECT = {
    "postprocessing_instance_count": "one instance, since the state of streams lives in its process"
}


# Values that published commands give, and that another command is for.
WAYS_ON = {
    ("triton_backend", "tensorrtllm"): (
        ". This template is that of the embedded engines: for an engine of TensorRT-LLM run"
        " `make repo ENGINE=folder` (config.json and *.engine in it), which writes the model of its"
        " release and takes the same keys with SET="
    )
}


def _whole(least: int) -> Callable[[str], bool]:
    return lambda value: bool(re.fullmatch(r"\d{1,19}", value)) and least <= int(value) <= INT64_MAX


def _fraction(value: str) -> bool:
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


# Type -> (whether a value is of it, how a message says so).
TYPES: dict[str, tuple[Callable[[str], bool], str]] = {
    "int": (_whole(0), "a whole number"),
    "count": (_whole(1), "a whole number of 1 or more"),
    "ints": (lambda value: bool(re.fullmatch(r"\d+(,\d+)*", value)), r"numbers: 0\,1\,2"),
    "fraction": (_fraction, "a number from 0 to 1"),
    "bool": (lambda value: value.lower() in ("true", "false"), "true or false"),
    "text": (lambda value: "${" not in value, "text without ${...}"),
}


@dataclass(frozen=True)
class Placeholder:
    """One `${name}`. `default` is None where there is none: then a value has to be given."""

    name: str
    type: str
    default: str | None
    meaning: str

    def check(self, value: str) -> str:
        """The value as it goes into a config. Raises PlaceholderError if it does not fit."""
        if value == "":
            if self.default is None:
                raise PlaceholderError(f"{self.name}: is empty; {self.meaning}")
            return self.default
        fits, words = self._type()
        if not fits(value):
            way_on = WAYS_ON.get((self.name, value), "")
            raise PlaceholderError(f"{self.name}: {value!r} does not fit; it takes {words}{way_on}")
        return value.lower() if self.type == "bool" else value

    def _type(self) -> tuple[Callable[[str], bool], str]:
        kind, _, choices = self.type.partition(": ")
        if kind == "choice":
            allowed = choices.split("|")
            return allowed.__contains__, ", ".join(allowed)
        return TYPES[self.type]


@functools.cache
def known_placeholders() -> dict[str, Placeholder]:
    """Every placeholder of the templates and of every TensorRT-LLM release, by name."""
    data = json.loads((Path(__file__).parent / "placeholders.json").read_text())
    return {name: Placeholder(name=name, **entry) for name, entry in data.items()}


def translate(
    values: Mapping[str, str],
    present: Iterable[str],
    release: str = "",
    published: Collection[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """Keys of other releases to those at hand; and a note for each that is not simply used.

    `present` are the keys that the template or release has, `published` those that some release's
    template of this model has. Keys of neither stay, for the caller to refuse.

    >>> translate({"max_num_sequences": "4"}, ["engine_dir"])
    ({}, ['max_num_sequences has no effect after TensorRT-LLM 0.7: triton_max_batch_size decides'])
    """
    here = set(present)
    known = known_placeholders()
    kept, notes = {}, []
    for key, value in values.items():
        new, since = RENAMED.get(key, ("", ""))
        old = next((name for name, (later, _) in RENAMED.items() if later == key), "")
        if key in here or (key not in known and key not in published):
            kept[key] = value
        elif new in here:
            kept.setdefault(new, value)
            notes.append(f"{key} is {new} since TensorRT-LLM {since}: filled in there")
        elif old in here:
            kept.setdefault(old, value)
            notes.append(f"{key} is {old} in TensorRT-LLM {release}: filled in there")
        elif key in DROPPED:
            last, instead = DROPPED[key]
            notes.append(f"{key} has no effect after TensorRT-LLM {last}: {instead}")
        elif release:
            notes.append(f"{key} has no effect in TensorRT-LLM {release}: it has no such setting")
        elif key in published:
            why = WITHOUT_EFFECT.get(key, "this template has no such setting")
            notes.append(f"{key} has no effect here: {why}")
        else:
            kept[key] = value
    return kept, notes
