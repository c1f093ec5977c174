"""Removing and restoring: where bytes lie, what may be removed, and backups of the registry's database."""
