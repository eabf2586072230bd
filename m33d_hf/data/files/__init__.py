"""Reading files that may be damaged, writing files whole or not at all."""
