"""The language model on a Triton server: the client's half."""
