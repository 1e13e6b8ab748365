"""The page's table of families is what the lists say."""

from family_table import BEGIN, END, PAGE, table
from family_types import REFUSED, TYPES
from fetch_families import FAMILIES


def test_the_page_has_the_table() -> None:
    _, _, rest = PAGE.read_text().partition(BEGIN)
    assert rest.partition(END)[0] == table(), "run tests/families/family_table.py"


def test_every_family_has_its_types() -> None:
    names = {family.name for family in FAMILIES}
    assert {name for name, _ in REFUSED} <= names
    assert names == set(TYPES)
