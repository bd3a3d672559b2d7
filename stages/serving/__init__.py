"""A trained model as it answers: what it loads, how sure it has to be, what it says."""
