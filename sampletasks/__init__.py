"""The jobs of the tutorial, one file for each topic."""
