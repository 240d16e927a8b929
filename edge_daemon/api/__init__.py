"""The HTTP API on the device: OpenAI's chat completions, documents, health and metrics."""
