"""The cloud's end: composition root that serves sessions from the public documents, and holds the scheduler."""
