"""The libraries that pers is measured beside. Each module wraps one, opened on the same GPU."""

from __future__ import annotations

__all__ = ["PeerMissingError", "same_gpu"]


class PeerMissingError(Exception):
    """A peer is not installed or does not run here; the message says why."""


def same_gpu(pers_name: str, peer_name: str) -> bool:
    """Whether two names of drivers mean the same GPU: "NVIDIA L4", "NVIDIA L4/PCIe/SSE2"."""
    ours, theirs = pers_name.lower(), peer_name.lower()
    return ours in theirs or theirs in ours
