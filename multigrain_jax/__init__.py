"""MultiGrain in JAX: one embedding for classification, retrieval and copies."""
