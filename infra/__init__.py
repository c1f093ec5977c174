"""How the project is set up and tried out: environment, locks, servers, the smoke run."""
