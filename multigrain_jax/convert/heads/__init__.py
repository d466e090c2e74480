"""Descriptor heads of other networks: one file for each."""
