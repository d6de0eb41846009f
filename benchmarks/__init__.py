"""pers beside its peers: raw wgpu-py, moderngl and slangpy, in one process, turn by turn.

``python -m benchmarks`` runs them, and so does ``pers bench``. Every module whose name is in
`benchmarks.run.BENCHMARKS` measures one thing; `benchmarks.core` takes turns and does the
statistics; `benchmarks.targets` holds the results against what pers must reach.
"""
