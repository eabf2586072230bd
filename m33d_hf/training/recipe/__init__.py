"""What a run is asked to do: fields, files, the command line."""
