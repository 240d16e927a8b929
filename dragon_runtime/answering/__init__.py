"""From a request to a finished answer at one end: prompts, the loop, what is told of it."""
