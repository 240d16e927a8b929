"""One answer between two peers, as a state machine without I/O. The same class serves both ends."""
