"""The pins with hashes are the pins, and the report of ci/supply says what it saw."""

import re
from typing import Any

from support.audit_report import report
from support.paths import ROOT

REQUIREMENTS = ROOT / "requirements"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
SBOM = {"components": [1, 2], "specVersion": "1.6"}


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((REQUIREMENTS / name).read_text()))


def audit(**package: Any) -> dict[str, Any]:
    return {"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b"} | package]}


def test_the_hashed_pins_are_those_of_the_constraints() -> None:
    hashed = pins("serve-hashes.txt")
    assert len(hashed) > 50
    assert hashed <= pins("constraints.txt") | pins("serve-binaries.txt")


def test_every_hashed_pin_has_hashes() -> None:
    for name in ("serve-hashes.txt", "supply-hashes.txt", "deploy-hashes.txt"):
        text = (REQUIREMENTS / name).read_text()
        for part in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", part), part


def test_nothing_found_is_no_failure() -> None:
    lines, status = report(audit(version="2", vulns=[]), SBOM, audited=True)
    assert status == 0
    assert lines == ["bill of materials: 2 components, 1.6", "advisories: none for 2 packages"]


def test_what_could_not_be_looked_up_is_said_and_fails_where_it_has_to_be() -> None:
    missed = audit(skip_reason="not found")
    lines, status = report(missed, SBOM, audited=False)
    assert status == 0
    assert "1 of 2 packages were NOT looked up" in lines[-1]
    assert report(missed, SBOM, audited=True)[1] == 1


def test_a_known_vulnerability_fails_and_is_named() -> None:
    known = {"id": "PYSEC-1", "fix_versions": ["3"]}
    lines, status = report(audit(version="2", vulns=[known]), SBOM, audited=False)
    assert status == 1
    assert "advisories: b 2: PYSEC-1, fixed in 3" in lines
