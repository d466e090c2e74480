"""The networks: layers, trunks, and the whole model."""
