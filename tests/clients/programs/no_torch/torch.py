"""Stands for torch, which end_to_end_test.py imports and needs for logits alone."""
