"""The property test of the buffer layer: any calls, in any order, against an oracle."""

from pers.testing.property.machine import buffer_machine

__all__ = ["buffer_machine"]
