"""The one node: its processes, files and first objects, and the command that starts and stops it."""
