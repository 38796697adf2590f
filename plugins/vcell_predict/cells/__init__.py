"""Generate the cells of a prediction from control cells."""
