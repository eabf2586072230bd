"""The web page: python -m m33d_hf.demo. Drop a picture or a clip, see what a model makes of it."""
