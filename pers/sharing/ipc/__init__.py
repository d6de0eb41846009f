"""How processes find each other and hand over textures: Unix domain sockets, and what goes there.

`address` finds a stream by name, `wire` and `dialogue` are the protocol without any input or
output, `channel` is one connection, `credentials` says who is there, and `listener` serves many.
"""
