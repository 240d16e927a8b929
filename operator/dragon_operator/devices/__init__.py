"""EdgeDevices: what is wanted of each, what its status says, and who keeps both true over which broker.

How a broker is spoken to is `fleet`'s; how a deployment's own objects come about is `look`'s.
"""
