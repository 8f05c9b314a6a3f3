"""Training: one loop, exact resume, and what it needs."""
