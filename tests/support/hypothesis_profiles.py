"""How many examples hypothesis makes: few by default, all with `--hypothesis-profile=full`.

`ci/unit` has a minute and takes few; `make test-all` takes all.
"""

from hypothesis import settings

FEW = 25

settings.register_profile("quick", max_examples=FEW, deadline=None)
settings.register_profile("full", max_examples=200, deadline=None)
settings.load_profile("quick")


def examples(full: int) -> int:
    """The examples of one test that has its own number of them in the profile `full`."""
    return full if settings.get_current_profile_name() == "full" else min(full, FEW)
