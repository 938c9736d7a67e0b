"""Which films people like better: a blind page with two films side by side, and ELO scores from what they choose."""
