"""What an output folder holds: how it was begun, of which inputs, and how another call tells that it is one."""
