"""What every stage speaks: params, schemas, paths, the stage frame and tracking."""
