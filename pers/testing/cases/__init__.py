"""The cases, one module for each part of the suites they come from."""
