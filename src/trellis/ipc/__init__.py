# SPDX-License-Identifier: Apache-2.0
"""What the processes of one server tell each other, over local sockets."""
