"""What pip-audit and cyclonedx-py found, in lines: `python -m support.audit_report AUDIT SBOM`.

Exit status 1 for a package with a known vulnerability, and with `--audited` for one that could not
be looked up: an index that is no PyPI has no advisories.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def report(audit: dict[str, Any], sbom: dict[str, Any], audited: bool) -> tuple[list[str], int]:
    """The lines, and the exit status."""
    packages = audit["dependencies"]
    missed = [package["name"] for package in packages if "skip_reason" in package]
    found = list(_found(packages))
    lines = [f"bill of materials: {len(sbom['components'])} components, {sbom['specVersion']}"]
    lines += found or [f"advisories: none for {len(packages) - len(missed)} packages"]
    if missed:
        lines.append(
            f"advisories: {len(missed)} of {len(packages)} packages were NOT looked up, since the"
            " database cannot be reached from here; run this where PyPI's own can"
        )
    return lines, int(bool(found) or (audited and bool(missed)))


def _found(packages: list[dict[str, Any]]) -> Iterator[str]:
    for package in packages:
        for known in package.get("vulns", []):
            fixed = ", ".join(known.get("fix_versions", [])) or "no version"
            named = f"{package['name']} {package['version']}"
            yield f"advisories: {named}: {known['id']}, fixed in {fixed}"


def main() -> int:
    """Print the report; the exit status."""
    audit, sbom, *more = sys.argv[1:]
    if not Path(audit).exists():
        print("advisories: pip-audit wrote nothing; build/audit.log says why")
        return 1
    lines, status = report(
        json.loads(Path(audit).read_text()),
        json.loads(Path(sbom).read_text()),
        "--audited" in more,
    )
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
