"""Measured speed and memory of merging, against a peer and against plain reads and writes; and parity of the numbers with the peer.

    python -m benchmarks run --scale 50m      # all parts at a small size; `make bench` for the sizes that docs/benchmarks.md shows
    python -m benchmarks parity               # every shared method, element by element
    python -m benchmarks write                # the results so far -> docs/benchmarks.md

checkpoints.py makes the models, measure.py watches one process, contest.py runs contenders in turn, contenders.py says who they are. Each
part of the benchmark is a file: methods.py (against the peer), scaling.py (workers), limits.py (memory), planning.py (plans of models too
large for this machine), parity.py. document.py turns their results into the page.
"""
