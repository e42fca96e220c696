"""Encoded bytes to pixels and back: cpu.py on the processor, from the parts in the other files."""
