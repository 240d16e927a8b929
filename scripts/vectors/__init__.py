"""What stands in docs/vectors, a module for each file: `build` computes its content with the code."""
