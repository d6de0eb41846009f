"""Textures, buffers and signals that several processes and APIs use without a copy."""
