"""The pipeline's stages, one package each; run one with `python -m stages.NAME`."""
