"""TLS and keys before a real server: the launcher, curl, OpenAI's client, `trellis ask`."""

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import httpx2
import openai
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.certificates import Authority
from support.key_files import KeyFile
from support.launched import Launched
from support.paths import ROOT
from support.serving import serve

LOOPBACK = "127.0.0.1"
CLIENT = ROOT / "tools" / "client.py"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.yaml")


@pytest.fixture(scope="module")
def key(key_file: KeyFile) -> str:
    return key_file.add("alice")


@pytest.fixture(scope="module")
def launched(
    demo_repo: Path,
    authority: Authority,
    key_file: KeyFile,
    key: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Launched]:
    """One that got ready, so the launcher's own looks at its health come through TLS."""
    signed = authority.sign("server", LOOPBACK)
    options = ["--tls-cert", str(signed.cert), "--tls-key", str(signed.key)]
    options += ["--api-keys", str(key_file.path)]
    with serve(demo_repo, tmp_path_factory.mktemp("tls"), *options, launcher=True) as running:
        yield running


def url(launched: Launched) -> str:
    return f"https://{LOOPBACK}:{launched.http}"


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.cert))


def test_the_launcher_prints_where_to_ask(launched: Launched) -> None:
    assert f"{url(launched)}/v2/models/ensemble" in launched.log()


def test_openais_client_streams_over_tls(
    launched: Launched, authority: Authority, key: str
) -> None:
    with (
        httpx2.Client(verify=trusting(authority)) as http,
        openai.OpenAI(base_url=f"{url(launched)}/v1", api_key=key, http_client=http) as client,
    ):
        chunks = client.chat.completions.create(
            model="ensemble",
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=20,
            stream=True,
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_curl_asks_with_a_key(launched: Launched, authority: Authority, key: str) -> None:
    command = ["curl", "-s", "--cacert", str(authority.cert), "--tlsv1.2", "-i"]
    command += ["-H", f"X-API-Key: {key}", "-H", "X-Request-Id: mine-7"]
    body = json.dumps({"text_input": "Once", "max_tokens": 4})
    asked = [*command, f"{url(launched)}/v2/models/ensemble/generate", "-d", body]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert said.startswith("HTTP/1.1 200")
    assert "x-request-id: mine-7" in said
    assert "strict-transport-security: max-age=" in said


@pytest.mark.parametrize("by", ["https", "grpc"])
def test_trellis_ask_takes_tls_and_a_key(
    launched: Launched, authority: Authority, key: str, by: str
) -> None:
    address = url(launched) if by == "https" else f"{LOOPBACK}:{launched.grpc}"

    def ask(*more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(CLIENT), "Once upon", "--url", address]
        command += ["--ca-cert", str(authority.cert), "--max_tokens", "5", *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    answered = ask("--api-key", key, "--return_finish_reason", "true", "--end_id", "-1")
    assert answered.returncode == 0
    assert answered.stdout.strip()
    assert "finish_reason: ['length']" in answered.stderr
    refused = ask()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no API key" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_new_certificate_is_there_after_sighup_while_a_stream_goes_on(
    launched: Launched, authority: Authority, key: str
) -> None:
    body = {"text_input": "Once", "max_tokens": 100, "stream": True, "end_id": -1}
    asked = f"{url(launched)}/v2/models/ensemble/generate_stream"
    headers = {"X-API-Key": key}
    with (
        httpx.Client(verify=trusting(authority), timeout=100) as http,
        http.stream("POST", asked, json=body, headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        launched.process.send_signal(signal.SIGHUP)
        events = [line for line in lines if line.startswith("data: ")]
    assert len(events) > 50
    assert "error" not in events[-1]
    assert "certificates: read again" in launched.log()


def test_grpc_speaks_tls_and_asks_for_the_key(
    launched: Launched, authority: Authority, key: str
) -> None:
    place, trusted = f"{LOOPBACK}:{launched.grpc}", str(authority.cert)
    with triton.InferenceServerClient(place, ssl=True, root_certificates=trusted) as client:
        assert client.is_server_live()
        assert client.get_model_metadata("ensemble", headers={"x-api-key": key}).name == "ensemble"
        with pytest.raises(InferenceServerException, match="no API key"):
            client.get_model_metadata("ensemble")
    with (
        triton.InferenceServerClient(place) as plain,
        pytest.raises(InferenceServerException),
    ):
        plain.is_server_live(client_timeout=3)
