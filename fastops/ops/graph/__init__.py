"""Operations on graphs: gathers, scatters and segments; sparse products; graph convolutions."""
