"""How a process of ours starts, logs, tells its health, and ends its tasks."""
