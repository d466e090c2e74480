"""Published weights that are asked for by name."""
