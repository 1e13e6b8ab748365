# SPDX-License-Identifier: Apache-2.0
"""Names in the wiring of an assembled repository that several parts must agree on."""

# Input of a Python engine: its chunks go to `postprocessing`, where streams nobody reads are found.
STEP_MARK = "ensemble_step"
IDS_SUFFIX = "_ids"  # of the ensemble beside one, whose answers are token ids
