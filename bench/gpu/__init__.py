"""The parts of `python -m bench gpu`: each measures one thing, as its first lines tell."""
