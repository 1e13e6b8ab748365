# SPDX-License-Identifier: Apache-2.0
"""The command `trellis`, and the tools of the folder tools/."""
