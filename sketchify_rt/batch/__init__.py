"""Many images: where they come from, where they go, and the threads that carry them."""
