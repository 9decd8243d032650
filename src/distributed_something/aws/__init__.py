"""The engine `aws`: SQS, EC2, ECS and S3. The only package that imports boto3, and only when it is used."""
