"""The backends: each implements the port in `pers.graphics.native`."""
