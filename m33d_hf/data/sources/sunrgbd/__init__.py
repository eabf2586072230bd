"""SUN RGB-D as its toolbox lays it out."""
