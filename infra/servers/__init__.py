"""`make up` and `make down`: real servers as supervised processes on this machine, without containers."""
