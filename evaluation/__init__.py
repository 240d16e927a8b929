"""How good answers are: generated questions, the methods that answer them, and how answers are judged.

How fast they are is measured in bench.
"""
