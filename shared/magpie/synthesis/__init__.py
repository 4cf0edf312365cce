"""Pictures made by code: products, cut-outs, scenes with exact boxes, for training and the sample shop."""
