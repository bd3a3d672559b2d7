"""What all stages share: params, tables, the stage frame, readers, cleaning of texts, and pages."""
