"""Packages as pip leaves them: a module that is empty, and its version among the metadata."""

from pathlib import Path


def fake_package(folder: Path, module: str, version: str, name: str = "") -> dict[str, str]:
    """An environment in which Python finds this package; `name` is what pip calls it."""
    normalised = (name or module).replace("-", "_")
    package, info = folder / module, folder / f"{normalised}-{version}.dist-info"
    for made in (package, info):
        made.mkdir(parents=True)
    (package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    metadata = f"Metadata-Version: 2.1\nName: {name or module}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    return {"PYTHONPATH": str(folder)}
