"""Plans fitted to a model, against the best samplers that are not fitted."""
