"""What `flows.predict` is made of: the request, the model, answers, and parts that survive a kill."""
