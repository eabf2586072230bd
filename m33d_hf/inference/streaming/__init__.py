"""Following from the command line: the words that name feeds, and the files that come of them."""
