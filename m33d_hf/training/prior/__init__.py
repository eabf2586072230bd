"""How much the mean depth per position shares in predictions, chosen on training frames that a trial run leaves out."""
