"""Run the U-Net as a TensorRT engine on an NVIDIA GPU.

In this package `import tensorrt` means NVIDIA's library, which only `library` imports.

- `engines`: the entry: find an engine for this machine, or build and verify one.
- `typed_onnx`, `build`, `verify`: from an ONNX file to an engine that is known to work.
- `record`, `cache`: what an engine was built from and for, and the files that engines are kept in.
- `session`: an engine at work.
"""
