"""Setting the project up and trying it out: environment, locks, servers, the smoke run."""
