"""Outs of a rebuild held against the recorded ones, and how two files differ."""
