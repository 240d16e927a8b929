"""The protocol of two peers that write one answer together. Pure: no I/O, no clock, no threads, no logging.

Time, chance and identity come in as arguments; see docs/protocol.md for what is computed and sent.
"""
