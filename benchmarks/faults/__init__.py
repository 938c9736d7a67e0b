"""Faults on purpose: damaged files, crashes at every file operation, killed servers, films in a row."""
