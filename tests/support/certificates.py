"""Certificates for tests, by the command openssl: an authority, and what it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Signed:
    """A certificate and its key, PEM."""

    cert: Path
    key: Path


class Authority:
    """One that signs certificates, in a folder of its own."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.cert, self._key = folder / "ca.pem", folder / "ca.key"
        files = ("-keyout", self._key, "-out", self.cert)
        _openssl("req", "-x509", *CURVE, "-days", DAYS, "-subj", f"/CN={name}", *files)

    def sign(self, name: str, *hosts: str) -> Signed:
        """A certificate of that name, for `hosts`: addresses."""
        made = Signed(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names = ",".join(["DNS:localhost", *(f"IP:{host}" for host in hosts)])
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        signer = ("-CA", self.cert, "-CAkey", self._key, "-CAcreateserial", "-days", DAYS)
        more = ("-extfile", extensions, "-out", made.cert)
        _openssl("x509", "-req", "-in", request, *signer, *more)
        return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
