"""The page's table of families is what the lists say."""

from families.family_table import BEGIN, END, PAGE, table
from families.family_types import REFUSED, TYPES
from families.fetch_families import FAMILIES


def test_the_page_has_the_table() -> None:
    _, _, rest = PAGE.read_text().partition(BEGIN)
    assert rest.partition(END)[0] == table(), "PYTHONPATH=tests python -m families.family_table"


def test_every_family_has_its_types() -> None:
    names = {family.name for family in FAMILIES}
    assert {name for name, _ in REFUSED} <= names
    assert names == set(TYPES)
