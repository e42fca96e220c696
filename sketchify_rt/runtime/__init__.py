"""Run the U-Net on a batch; one module for each library that can."""
