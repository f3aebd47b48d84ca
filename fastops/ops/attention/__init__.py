"""Attention: the products with softmax between them, heads with their projections, rotary positions."""
