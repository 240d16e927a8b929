"""`dragonctl`: the local stack, questions, documents and diagnosis."""
