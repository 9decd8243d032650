"""The store on S3."""
