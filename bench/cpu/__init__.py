"""The parts of `python -m bench all`."""
