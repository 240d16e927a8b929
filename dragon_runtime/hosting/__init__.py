"""What runs inside a Triton server: its models' service, and its metrics."""
