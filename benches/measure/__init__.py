"""What benches/run measures with: whole processes, from outside, as an operator would see them."""
