"""Training of the U-Net: `python -m training prepare | fit | export | evaluate | quantize`."""
