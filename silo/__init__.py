"""Silo."""

__version__ = "0.1.0"
