"""docs/clients.md says the versions that `ci/clients` runs, and every client that it runs."""

from clients.clients_table import PAGE, Row, read_page, read_versions
from support.paths import ROOT


def test_the_table_has_the_versions_that_are_pinned() -> None:
    pinned = read_versions()
    rows = read_page(PAGE.read_text())
    assert len(rows) == 22
    assert {row.client: row.version for row in rows} == {
        row.client: pinned[row.client] for row in rows
    }
    assert {row.client for row in rows} == set(pinned)


def test_the_readme_links_the_page() -> None:
    assert "(docs/clients.md)" in (ROOT / "README.md").read_text()


def test_a_failure_stands_for_a_row_and_then_what_was_not_run() -> None:
    row = Row("x", "1", "HTTP", "passed")
    assert row.worst("passed").result == "passed"
    assert row.worst("not run: no GitHub").result == "not run: no GitHub"
    assert row.worst("not run: no GitHub").worst("failed").worst("passed").result == "failed"
