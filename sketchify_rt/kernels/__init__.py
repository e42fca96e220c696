"""binarize, dodge, hint and compose: `reference` defines them in NumPy, `native` runs them fast."""
