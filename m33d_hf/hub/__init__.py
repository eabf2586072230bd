"""Publishing: a run's weights with processors, code, card and handler to the Hub, in one commit and one tag."""
