"""The engine `aws`: SQS, EC2 and ECS, with the store of `s3`. boto3 is imported only when it is used."""
