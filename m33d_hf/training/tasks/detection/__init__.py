"""Action detection: features of clips, then a model over whole videos."""
