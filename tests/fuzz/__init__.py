"""Coverage-guided fuzzing of what reads untrusted bytes, and of the kernels. See README.md."""
