# SPDX-License-Identifier: Apache-2.0
"""A server that asks for keys and speaks TLS, as an exposed one does, and its clients."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import tritonclient.grpc as triton
from tritonclient.grpc import InferenceServerClientPlugin

from trellis.errors import TrellisError
from trellis.gateway.access.key_file import KeyEntry, digest, new_key, write_keys
from trellis.server.access_settings import NO_ACCESS_SETTINGS, AccessSettings

CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    *("-nodes", "-days", "2", "-subj", "/CN=soak", "-addext", "subjectAltName=IP:127.0.0.1"),
)


class NoCertificate(TrellisError, RuntimeError):
    """There is no certificate to be had; the message says what to do."""


@dataclass(frozen=True)
class Access:
    """What a server is asked with."""

    settings: AccessSettings = NO_ACCESS_SETTINGS
    key: str = ""

    @classmethod
    def make(cls, folder: Path) -> "Access":
        """A key and a certificate, with their files in a folder. Raises NoCertificate."""
        key, keys = new_key(), folder / "keys.yaml"
        write_keys(keys, {"soak": KeyEntry(sha256=digest(key))})
        cert, private = folder / "cert.pem", folder / "key.pem"
        command = [*CERTIFICATE, "-keyout", str(private), "-out", str(cert)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoCertificate(
                f"openssl made no certificate ({error}); sudo apt-get install -y openssl, or soak"
                " with --no-keys"
            ) from None
        settings = AccessSettings(str(keys), str(cert), str(private), allowed_hosts=("127.0.0.1",))
        return cls(settings, key)

    def http(self, url: str, timeout: float) -> httpx.Client:
        """A client of the HTTP port."""
        if not self.key:
            return httpx.Client(base_url=url, timeout=timeout)
        known = ssl.create_default_context(cafile=self.settings.tls_cert)
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=url, timeout=timeout, verify=known, headers=headers)

    def grpc(self, address: str) -> triton.InferenceServerClient:
        """A client of the gRPC port."""
        if not self.key:
            return triton.InferenceServerClient(address)
        cert = self.settings.tls_cert
        client = triton.InferenceServerClient(address, ssl=True, root_certificates=cert)
        client.register_plugin(_Key(self.key))
        return client


NO_ACCESS = Access()


class _Key(InferenceServerClientPlugin):  # type: ignore[misc]  # tritonclient has no types
    """Sends the key with every call."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: object) -> None:
        request.headers["x-api-key"] = self._key  # type: ignore[attr-defined]
