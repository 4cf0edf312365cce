"""What lies in S3 and Redis: uploads, catalogue, ranking configs, crops, bundles."""
