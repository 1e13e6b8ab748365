"""Stands in for the module that only Triton's stub has."""

from support import fake_triton

fake_triton.install()
