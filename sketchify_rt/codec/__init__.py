"""Encoded bytes to pixels and back: cpu.py on the processor, cuda.py on a GPU, of the other files."""
