"""The property test of the buffer layer: any calls, in any order, against an oracle."""
