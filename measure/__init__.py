"""What measures and checks this package, for its developers: see BENCHMARKS.md."""
