"""The pages of the documentation as tests see them: their blocks with their marks, their links, and what runs them.

A code block in `sh` or `python` has one mark behind its language: `run=` with one of `Run`, or `not-run="REASON"`.
"""
