"""What if there had been more workers, or other limits?  A stretch of the log, lived through again with changes."""
