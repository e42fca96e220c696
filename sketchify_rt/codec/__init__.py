"""Encoded bytes to pixels and back: cpu.py for every format."""
