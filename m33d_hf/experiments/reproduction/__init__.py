"""Tables 3, 5 to 8 and Figure 2 of the paper, in shape, on the embedded rooms; and the questions behind them."""
