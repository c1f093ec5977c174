"""Kinds of raw data, one file each; `ingest.source.name` in params.yaml names the file, and only that one is loaded.

A source has
    Config                                           a frozen dataclass with `name: Literal["<file>"]` and its settings
    listing(config, root) -> Listing                 all samples in store order, cheaply, without reading them
    contents(config, root, unit, places, most)       (name, content) or Refused for each of `places` of the file `unit`;
                                                     content is encoded bytes, or an array [H, W] or [H, W, C]

A place states all that decides what is read there, including settings: decoded samples are found again by it and by
the time and size of its file. Samples should be in an order in which data added later come last. `contents` runs in
decoding processes.
"""
