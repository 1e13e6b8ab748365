# SPDX-License-Identifier: Apache-2.0
"""Asking the ensemble over HTTP or HTTPS, by `/generate_stream`: with a key, if it wants one."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trellis.contract.client_inputs import PROMPT
from trellis.errors import TrellisError

EVENT = b"data: "
_PLAIN = urllib.request.ProxyHandler({})  # an address given is the address meant


class AskFailed(TrellisError, RuntimeError):
    """The server cannot be asked, or says no; the message says why."""


def generate_by_http(
    url: str,
    model: str,
    prompt: str,
    values: Mapping[str, Any],
    timeout: float,
    api_key: str = "",
    ca_cert: str = "",
) -> Iterator[dict[str, np.ndarray]]:
    """The responses to one request as they come: output name -> array [n].

    Texts are object: UTF-8 bytes; other outputs are int64, float64 or bool, as JSON has them.
    `ca_cert`: whose certificates are trusted, PEM; "": the system's. Raises AskFailed.
    """
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    body = json.dumps({PROMPT: prompt, **values}).encode()
    asked = f"{url.rstrip('/')}/v2/models/{model}/generate_stream"
    request = urllib.request.Request(asked, body, headers, method="POST")
    try:
        context = ssl.create_default_context(cafile=ca_cert or None)
        https = urllib.request.HTTPSHandler(context=context)
        with urllib.request.build_opener(_PLAIN, https).open(request, timeout=timeout) as answer:
            for line in answer:
                if line.startswith(EVENT):
                    yield _event(line.removeprefix(EVENT))
    except urllib.error.HTTPError as error:
        raise AskFailed(_said(error.read())) from None
    except TimeoutError:
        raise AskFailed(f"no answer within {timeout:g} s (--timeout)") from None
    except urllib.error.URLError as error:
        raise AskFailed(f"no server answers at {url} ({error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AskFailed(f"{url}: the answer is cut off ({error})") from None


def _event(data: bytes) -> dict[str, np.ndarray]:
    found = json.loads(data)
    if "error" in found:
        raise AskFailed(str(found["error"]))
    return {name: _array(value) for name, value in found.items()}


def _array(value: Any) -> np.ndarray:
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, str) for each in values):
        return np.array([str(each).encode() for each in values], np.object_)
    return np.array(values)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
