"""Plans fitted to closed-form models, against the best samplers that are not fitted."""
