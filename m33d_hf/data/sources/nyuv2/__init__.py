"""NYU Depth v2: its labelled frames in one file or as pictures, its label ids, its official split."""
