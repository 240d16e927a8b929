"""Documents of one end: from a file to passages that can be found."""
