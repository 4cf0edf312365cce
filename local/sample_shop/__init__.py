"""A shop to try Magpie on, made on the spot: catalogue pictures on white, and photos of the products."""
