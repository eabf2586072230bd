# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""Model code that travels to the Hub beside the weights; import it as `m33d_hf.modeling`."""
