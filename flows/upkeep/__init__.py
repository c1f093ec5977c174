"""What takes away and gives back: where bytes lie, what may go, and the registry's database."""
