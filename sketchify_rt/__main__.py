"""`python -m sketchify_rt`, the same as the command `sketchify-rt`."""

from sketchify_rt.cli import main

if __name__ == "__main__":
    main()
