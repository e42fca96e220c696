"""Image files to pixels and back: cpu.py on the processor, cuda.py on a GPU."""
