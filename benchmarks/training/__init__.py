"""What training buys: one small network under several recipes; see `__main__`."""
