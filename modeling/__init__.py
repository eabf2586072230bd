"""Model code that travels to the Hub beside the weights; import it as `m33d_hf.modeling`."""
