"""What a run costs: measured steps, and the table that the dry run makes of them."""
