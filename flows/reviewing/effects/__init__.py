"""What a change did: two models on the same rows, and what each costs."""
