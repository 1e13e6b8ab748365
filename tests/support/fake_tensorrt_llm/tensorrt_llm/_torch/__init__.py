"""The part on PyTorch, of which only the list of models is here."""
