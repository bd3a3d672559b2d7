"""The rooms of `flows.predict`: rows in, answers out, parts that survive a kill, and the look at drift."""
