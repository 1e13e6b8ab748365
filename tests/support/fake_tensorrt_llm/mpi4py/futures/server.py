"""What MPI starts for each worker: `python -m mpi4py.futures.server`."""

from tensorrt_llm.worker import main

if __name__ == "__main__":
    main()
