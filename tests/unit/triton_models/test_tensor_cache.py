"""Tensors that are sent again: the right ones, and no more of them than is said."""

import numpy as np

from trellis.triton_models import tensor_cache as kept_tensors
from trellis.triton_models import text_tensors


def test_a_short_text_is_sent_again_and_a_long_one_is_not_kept() -> None:
    short, long = text_tensors.text_tensor("안녕"), text_tensors.text_tensor("x" * 33)
    assert short is text_tensors.text_tensor("안녕")
    assert long is not text_tensors.text_tensor("x" * 33)
    assert (short.array.tolist(), long.array.tolist()) == (["안녕".encode()], [b"x" * 33])


def test_texts_are_kept_up_to_a_number() -> None:
    for number in range(2 * text_tensors.KEPT):
        assert text_tensors.text_tensor(f"{number}").array.item() == b"%d" % number
    assert text_tensors._kept.cache_info().currsize == text_tensors.KEPT


def test_a_number_is_kept_for_its_name_and_type() -> None:
    end = kept_tensors.column("end", [2], np.int32)
    assert end is kept_tensors.column("end", [2], np.int32)
    for name, value, dtype in (("pad", 2, np.int32), ("end", 3, np.int32), ("end", 2, np.uint32)):
        other = kept_tensors.column(name, [value], dtype)
        assert (other.name, other.array.tolist(), other.array.dtype) == (name, [[value]], dtype)


def test_rows_make_a_column() -> None:
    array = kept_tensors.column("n", [1, 2], np.int32).array
    assert (array.shape, array.dtype) == ((2, 1), np.int32)
