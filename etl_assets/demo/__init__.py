"""Data sets to try the platform with: real flights, and a shop whose dirt is known row by row."""
