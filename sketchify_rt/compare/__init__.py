"""Sketches beside what they come from and what they are to be, as a sheet to look at."""
