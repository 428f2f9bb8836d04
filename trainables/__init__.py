"""What one trial does: methods, models, data, metrics and the training loop."""
