"""The commands of the core itself. Each module is imported when its command runs."""
