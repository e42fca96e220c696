"""What the project's speed claims rest on: `python -m bench NAME` runs bench/bench_NAME.py."""
