"""binarize, dodge, hint and compose: `reference` defines them, the other modules are fast."""
