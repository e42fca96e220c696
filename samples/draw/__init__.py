"""The sample pictures, drawn by code alone: `python -m samples.draw`."""
