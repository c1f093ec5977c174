"""Measured comparisons: `python -m benchmarks.NAME [--quick]` prints one JSON object a line.

Keys: name, unit, ours, peer, theirs, ratio (above 1: ours is better), goal, met, context. They are no tests: machines
are noisy, so read ratios from one run, not single times.
"""
