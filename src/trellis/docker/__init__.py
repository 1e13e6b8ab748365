# SPDX-License-Identifier: Apache-2.0
"""The container commands that build an engine or serve a repository."""
