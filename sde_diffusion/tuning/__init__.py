"""Plans fitted to a model: few steps, chosen by what the network's own paths say."""
