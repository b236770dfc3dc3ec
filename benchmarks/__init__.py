"""Measures the system through its real parts: `make bench`."""
