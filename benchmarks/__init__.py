"""Measured comparisons: `python -m benchmarks.NAME [--quick]` prints one JSON object per line.

Keys: name, unit, ours, peer, theirs, ratio (above 1: ours is better), goal, met, context. They are not tests: machines
are noisy, so read ratios from one run, not single times.
"""
