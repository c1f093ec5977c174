"""Feature extractors: what turns images into the vectors that metrics compare."""

from gan.features.domain import DomainNetwork, Recipe, features, fit, load, save

__all__ = ["DomainNetwork", "Recipe", "features", "fit", "load", "save"]
