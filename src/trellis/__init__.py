# SPDX-License-Identifier: Apache-2.0
"""LLMs behind Triton: what the plugins of a model repository, the gateway and the tools share.

ARCHITECTURE.md says what lies where. An assembled repository carries the part of this package that
its models run, so nothing here may import a package at its top that such a part does not need.
"""

__version__ = "0.2.0"
