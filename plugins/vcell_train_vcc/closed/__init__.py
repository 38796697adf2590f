"""The closed forms: models that are solved when they are loaded."""
