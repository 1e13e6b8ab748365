# SPDX-License-Identifier: Apache-2.0
"""Ask the ensemble over gRPC or HTTP: client.py "The capital of France is" --max_tokens 20."""

import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trellis.cli.ask_http import AskFailed, generate_by_http
from trellis.contract.client_inputs import CLIENT_INPUTS, MAX_TOKENS, STREAM
from trellis.grpc_client import INPUTS, generate, input_types

# Shown on standard error after the text, as the last response has them; of each token, all of them;
# and what is counted in each response, added up.
LAST = ("num_input_tokens", "finish_reason", "cum_log_probs")
EACH = "output_log_probs"
COUNT = "num_output_tokens"
MANY = frozenset(item.name for item in CLIENT_INPUTS if item.many)
TYPES = {"INT32": int, "UINT64": int, "FP32": float, "BYTES": str, "BOOL": bool}
NO_PROXY = ("grpc.enable_http_proxy", 0)  # an address given is the address meant
HTTP = ("http://", "https://")
CONNECT_SECONDS = 10.0
DEFAULTS: dict[str, Any] = {MAX_TOKENS: 128, STREAM: True}


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for every input of the ensemble, under the input's own name."""
    for name, (dtype, _) in reversed(INPUTS.items()):
        option = click.option(
            f"--{name}",
            name,
            type=TYPES[dtype],
            default=DEFAULTS.get(name),
            multiple=name in MANY,
        )
        command = option(command)
    return command


@click.command()
@click.argument("prompt")
@click.option(
    "--url",
    default="localhost:8001",
    show_default=True,
    help="gRPC address, or that of HTTP: https://host:8000",
)
@click.option(
    "--api-key",
    envvar="TRELLIS_API_KEY",
    show_envvar=True,
    default="",
    help="for a server with keys; in the variable no other user of the machine sees it",
)
@click.option(
    "--ca-cert", default="", help="whose certificates to trust, PEM; default: the system's"
)
@click.option("--model", default="ensemble", show_default=True, help="the ensemble to ask")
@click.option("--request_id", default="", help="needed for streams from the C++ backend")
@click.option("--timeout", default=600.0, help="seconds of silence after which to give up")
@sampling_options
def main(
    prompt: str,
    url: str,
    api_key: str,
    ca_cert: str,
    model: str,
    request_id: str,
    timeout: float,
    **values: Any,
) -> None:
    """Send PROMPT (- reads standard input), print the text as it comes.

    Over gRPC, with TLS where there is a --ca-cert, or over HTTP where --url begins with http:// or
    https://.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and value != ()
    }
    try:
        if url.startswith(HTTP):
            _print(generate_by_http(url, model, text, given, timeout, api_key, ca_cert), given)
        else:
            with _grpc_client(url, ca_cert) as client:
                _ask_grpc(client, text, url, model, request_id, timeout, given, api_key)
    except AskFailed as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _grpc_client(url: str, ca_cert: str) -> triton.InferenceServerClient:
    """A client, with TLS if it is said whose certificates to trust. Raises ClickException."""
    if ca_cert and not Path(ca_cert).is_file():
        raise click.ClickException(f"--ca-cert {ca_cert}: no such file")
    return triton.InferenceServerClient(
        url, ssl=bool(ca_cert), root_certificates=ca_cert or None, channel_args=[NO_PROXY]
    )


def _ask_grpc(
    client: triton.InferenceServerClient,
    text: str,
    url: str,
    model: str,
    request_id: str,
    timeout: float,
    given: dict[str, Any],
    api_key: str,
) -> None:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else None
    try:
        _look_for(client, url)
        types = input_types(client, model, headers)
        responses = generate(
            client, [text.encode()], given, request_id, timeout, (), types, model, headers
        )
        _print(responses, given)
    except InferenceServerException as error:
        raise click.ClickException(error.message()) from error
    except queue.Empty:
        raise click.ClickException(f"no answer within {timeout:g} s (--timeout)") from None


def _look_for(client: Any, url: str) -> None:
    """Raise ClickException where no server answers: a stream to nowhere may wait for ever."""
    try:
        client.is_server_live(client_timeout=CONNECT_SECONDS)
    except InferenceServerException as error:
        raise click.ClickException(
            f"no server answers at {url} ({error.status()}): start one (make serve), or give --url"
        ) from None


def _print(responses: Any, given: dict[str, Any]) -> None:
    """The text of one sequence as it comes; those of several one after another, at the end."""
    one = given.get("num_return_sequences", 1) == 1 and given.get("beam_width", 1) == 1
    extras: dict[str, list[Any]] = {}
    whole: dict[int, str] = {}
    for last in responses:
        extras.update((name, _values(last[name])) for name in LAST if name in last)
        if EACH in last:
            extras[EACH] = extras.get(EACH, []) + _values(last[EACH])
        if COUNT in last:
            extras[COUNT] = [sum(extras.get(COUNT, [])) + sum(_values(last[COUNT]))]
        texts = [text.decode() for text in last["text_output"].reshape(-1)]
        if one:
            print(texts[0], end="", flush=True)
            continue
        index = int(last.get("sequence_index", np.zeros(1, np.int32)).reshape(-1)[0])
        for number, text in enumerate(texts, index):
            whole[number] = whole.get(number, "") + text
    if one:
        print()
    for number, text in sorted(whole.items()):
        print(f"[{number}] {text}")
    for name, values in extras.items():
        print(f"{name}: {values}", file=sys.stderr)


def _values(array: np.ndarray) -> list[Any]:
    return [
        value.decode() if isinstance(value, bytes) else value
        for value in array.reshape(-1).tolist()
    ]
