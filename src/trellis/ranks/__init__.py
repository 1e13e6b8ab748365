"""Several ranks of one server, on this machine or on many."""
