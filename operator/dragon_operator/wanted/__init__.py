"""What is wanted: the resources as types, and how everything that follows from them is called and spelt.

Nothing of what became of it in a cluster: no children, no pods, and no clock.
"""
