# SPDX-License-Identifier: Apache-2.0
"""Formats of strings, as expressions: each matches valid ones alone, and all that are usual."""

_MONTHS = "(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
_DATE = f"[1-9][0-9]{{3}}-(?:{_MONTHS}|02-(?:0[1-9]|1[0-9]|2[0-8]))"  # without leap days
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_ZONE = "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[a-z0-9]{1,12}(?:-[a-z0-9]{1,12})?"
_HOST = rf"{_LABEL}(?:\.[a-z0-9]{{1,12}})?\.[a-z]{{2,6}}"
_NAME = "[A-Za-z0-9]{1,12}(?:[._+-][A-Za-z0-9]{1,12})?"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PATH = "(?:/[A-Za-z0-9._~-]+)*/?"

FORMATS = {
    "date": f"^(?:{_DATE})$",
    "time": f"^{_TIME}{_ZONE}$",
    "date-time": f"^(?:{_DATE})T{_TIME}{_ZONE}$",
    "duration": "^P(?:[0-9]{1,4}W|[0-9]{1,4}D(?:T[0-9]{1,4}H)?|T[0-9]{1,4}[HMS])$",
    "email": f"^{_NAME}@{_HOST}$",
    "hostname": f"^{_HOST}$",
    "ipv4": rf"^{_BYTE}(?:\.{_BYTE}){{3}}$",
    "ipv6": "^(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    "uri": f"^https?://{_HOST}{_PATH}$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
}
