"""besom's own app: what people call. May import both worlds."""
