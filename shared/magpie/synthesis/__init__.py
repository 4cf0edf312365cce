"""Pictures made by code: products, cut-outs, scenes with exact boxes. For training and for the sample shop."""
