"""The bridge's parts of the run: sessions settled, and webhooks delivered, by bridges as an operator starts them."""
