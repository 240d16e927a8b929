"""How a token is chosen from p~, and what each peer guesses it will be: one file each, and the choice."""
