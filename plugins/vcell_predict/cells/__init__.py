"""Making the cells of a prediction out of control cells."""
