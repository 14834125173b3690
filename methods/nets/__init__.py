"""Networks that are flow maps: MLP, U-Net, DiT, and preconditioning around any of them."""
