"""As much of mpi4py's name as the fake's workers are started by."""
