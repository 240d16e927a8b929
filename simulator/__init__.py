"""Two sessions in virtual time over a link that delays, cuts and loses, with a toy model, and their right answer."""
