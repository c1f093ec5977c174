"""The library: networks, losses, training step, sampling, features and metrics.

It reads no parameters, prints nothing and knows no tracker. Import what you need from its subpackages; importing
`gan` alone loads nothing, so that one metric does not cost the import of the networks.
"""
