"""Other engines that compute a network for inference, from what JAX traces of it."""
