# SPDX-License-Identifier: Apache-2.0
"""A soak says what memory would be after more hours."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.soak.measure import Held, grown, rows, slopes

HELD = Held(0, 8, 90, 200.0, 300.0, 900.0, 70.0, 400, 12, 64.0)


def looks(*gateway: float, every: float = 30) -> list[tuple[float, Held]]:
    """One each `every` seconds, with so much memory of the gateway."""
    return [
        (1000 + number * every, dataclasses.replace(HELD, gateway_mib=mib))
        for number, mib in enumerate(gateway)
    ]


@given(st.floats(-500, 500), st.floats(1, 1000), st.integers(3, 40))
def test_a_straight_line_has_its_slope(slope: float, first: float, count: int) -> None:
    found = slopes(looks(*(first + slope * number * 30 / 3600 for number in range(count))))
    assert found["gateway_mib"] == pytest.approx(slope, abs=1e-3)
    assert found["triton_mib"] == pytest.approx(0, abs=1e-6)


def test_what_is_taken_once_in_the_earlier_half_is_none() -> None:
    assert slopes(looks(70, 90, 130, 130, 130))["gateway_mib"] == pytest.approx(0)


def test_one_look_has_none() -> None:
    assert slopes([]) == slopes(looks(70)) == {}


def test_the_table_has_it_of_memory_alone() -> None:
    shown = rows(HELD, HELD, slopes(looks(70, 70, 71)))
    assert shown[0] == ("requests", "0", "0", "")
    assert ("gateway, MiB", "70", "70", "+120") in shown


def test_a_leak_is_told() -> None:
    assert grown(HELD, HELD) == []
    more = dataclasses.replace(HELD, gateway_mib=70 * 1.1 + 65, descriptors=425)
    assert [problem.split(" from")[0] for problem in grown(HELD, more)] == [
        "descriptors grew",
        "memory of gateway grew",
    ]
