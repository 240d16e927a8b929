"""The device's end: composition root of the local HTTP API, the private documents, the engine and the connection."""
