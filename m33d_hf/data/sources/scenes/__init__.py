"""RGB-D frames of the big indoor data sets, through the library scenezoo."""
