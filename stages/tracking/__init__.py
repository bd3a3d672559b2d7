"""MLflow as a projection of the files: fed live, published again at will, never in a training's way."""
