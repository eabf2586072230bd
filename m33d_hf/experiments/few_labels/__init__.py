"""Few labels x starts x seeds on any data that a recipe reads: the axes of Figure 2 and Table 2, with verdicts."""
