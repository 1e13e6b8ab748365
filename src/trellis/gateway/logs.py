# SPDX-License-Identifier: Apache-2.0
"""The gateway's log: lines of text or of JSON, and one for each request that was answered.

Of what was asked a line has sizes and names alone, unless the launcher was told `--log-prompts`.
"""

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import datetime, timezone
from typing import Any

from trellis.gateway.log_rate import LineLimit
from trellis.gateway.metrics.record import GONE, Record
from trellis.gateway.refusals import shown

FORMATS = ("text", "json", "none")
MEMBERS = "members"  # of a log record: what a line of JSON has beside
access = logging.getLogger("trellis.access")


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z trellis.access: POST /v1/completions 200 ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        members = getattr(record, MEMBERS, None)
        more = "".join(f" {name}={_text(value)}" for name, value in (members or {}).items())
        return f"{_time(record)} {record.name}: {record.getMessage()}{more}"


class JsonLines(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        made = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(getattr(record, MEMBERS, None) or {}),
        }
        return json.dumps(made, ensure_ascii=False)


class AccessLog:
    """Writes the line of a request."""

    def __init__(self, prompts: bool) -> None:
        """`prompts`: whether it has what was asked."""
        self._prompts = prompts
        self._health: dict[str, int] = {}  # the last status of each of its paths

    def __call__(self, scope: MutableMapping[str, Any], record: Record) -> None:
        """A request has ended. A probe of health has a line where its status is another one."""
        status, path = record.status or GONE, scope["path"]
        if record.probes:
            if self._health.get(path) == status:
                return
            self._health[path] = status
        members = {name: value for name, value in _members(scope, record).items() if value != ""}
        if self._prompts and record.prompt:
            members["prompt"] = record.prompt
        access.info("%s %s %d", scope["method"], shown(path), status, extra={MEMBERS: members})


def set_up(form: str, lines: float) -> None:
    """Have all lines of this process written in one of FORMATS, `lines` of requests a second.

    "none": as Python writes warnings by itself, and no line for a request.
    """
    if form == "none":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.getLogger().addHandler(handler)
    access.setLevel(logging.INFO)
    logging.getLogger("trellis.tokenizers").setLevel(logging.INFO)  # which library encodes
    access.addFilter(LineLimit(lines, max(int(lines), 1)))


def _members(scope: MutableMapping[str, Any], record: Record) -> dict[str, Any]:
    """What a line has, "" for what does not apply."""
    first = record.first_at
    queued = [meter.queued for meter in record.meters if meter.queued is not None]
    asked = bool(record.meters) or record.prompt_tokens
    return {
        "id": record.request_id,
        "trace_id": record.traceparent[3:35],
        "client": (scope.get("client") or ("",))[0],
        "model": record.model,
        "adapter": record.adapter,
        "prompt_tokens": record.prompt_tokens if asked else "",
        "cached_tokens": "" if record.cached is None else record.cached,
        "tokens": record.tokens if record.meters else "",
        "finish_reason": record.finish_reason,
        "rejected": record.reason,
        "seconds": round(record.ended - record.started, 6),
        "first_token_seconds": round(first - record.started, 6) if first else "",
        "queue_seconds": max(queued) if queued else "",
    }


def _text(value: Any) -> str:
    """A value in a line of text: in quotes where it has blanks or is none of a plain form.

    >>> _text(0.5), _text("stop"), _text("a\\nb c")
    ('0.5', 'stop', '"a\\\\nb c"')
    """
    text = str(value)
    plain = text.isprintable() and not any(mark in text for mark in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    """When it was made, UTC."""
    made = datetime.fromtimestamp(record.created, timezone.utc)
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")
