"""Sketches and models in other tools: torchvision, albumentations, Triton Inference Server."""
