"""What an end does in each phase of a session: free functions over a `SessionEnd`. No state of their own."""
