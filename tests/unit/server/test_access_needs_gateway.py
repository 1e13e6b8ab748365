"""What only the gateway asks for is never left out silently."""

from pathlib import Path

import pytest

from trellis.server.access_settings import AccessSettings
from trellis.server.admin_endpoints import restrictions
from trellis.server.process import Server
from trellis.server.settings import ServerFailed, ServerSettings, has_gateway

KEYED = AccessSettings(api_keys="keys.yaml")


@pytest.mark.parametrize(
    "access", [KEYED, AccessSettings(tls_cert="c"), AccessSettings(allowed_hosts=("a",))]
)
def test_a_server_without_a_gateway_does_not_start_with_keys_or_tls(
    tmp_path: Path, access: AccessSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings = ServerSettings(tmp_path, http_gateway=False, access=access)
    with pytest.raises(ServerFailed, match="--no-http_gateway: leave it out; only the gateway"):
        Server(settings)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_no_way_around_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trellis.server.settings.missing_package", lambda: "httptools")
    with pytest.raises(ServerFailed, match="the package httptools is not installed"):
        has_gateway(ServerSettings(tmp_path, access=KEYED))
    assert not has_gateway(ServerSettings(tmp_path))


def test_with_tls_it_is_asked_by_https(tmp_path: Path) -> None:
    assert ServerSettings(tmp_path, access=AccessSettings(tls_cert="c")).url.startswith("https://")
    assert ServerSettings(tmp_path, access=KEYED).url.startswith("http://")


def test_paths_are_absolute_for_a_process_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = AccessSettings(api_keys="k", cors_origins=("*",)).absolute()
    assert made == AccessSettings(api_keys=str(tmp_path / "k"), cors_origins=("*",))


def test_with_keys_grpc_is_shut_or_is_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_bytes(b"http-restricted-api grpc-restricted-protocol")
    _, grpc = restrictions(binary, "secret", keyed=True)
    assert ",metadata,inference,model-config,statistics:trellis-admin=secret" in grpc
    (alone,) = restrictions(binary, "secret", admin=True, keyed=True)
    shut = "--grpc-restricted-protocol=metadata,inference,model-config,statistics:"
    assert alone.startswith(shut)
    assert restrictions(binary, "secret", admin=True) == []
    binary.write_bytes(b"http-restricted-api")
    assert restrictions(binary, "secret", keyed=True)[-1] == "--allow-grpc=false"
