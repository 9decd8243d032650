"""The store on S3, or a server like it, and calls of AWS. boto3 and obstore are imported at first use."""
