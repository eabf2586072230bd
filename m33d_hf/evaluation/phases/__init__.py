"""Metrics of surgical phase recognition as its literature reports them: per video, with and without relaxed borders."""
