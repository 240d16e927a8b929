"""What a device and the operator tell each other: messages, and the join token that lets a device in."""
