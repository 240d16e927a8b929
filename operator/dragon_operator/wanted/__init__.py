"""What is wanted: the resource as types, and how everything that follows from it is called."""
