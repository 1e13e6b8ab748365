"""Triton as a process: found, started, watched until it is ready, and ended."""
