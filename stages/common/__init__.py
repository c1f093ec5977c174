"""What every room shares: commands, files and summaries. Loaded by all stages, so keep it small."""
