#!/bin/sh
# The steps of the start script in the images of the reference's children, written from a description of them.
# It has no `set -e`: a step that fails is passed over.
machine=$(curl -s http://169.254.169.254/latest/meta-data/instance-id)
aws ec2 create-tags --resources "$machine" --tags "Key=Name,Value=${APP_NAME}Worker"
for disk in 0 1; do
    volume=$(aws ec2 describe-instance-attribute --instance-id "$machine" --attribute blockDeviceMapping --output text \
        --query "BlockDeviceMappings[$disk].Ebs.[VolumeId]")
    aws ec2 create-tags --resources "$volume" --tags "Key=Name,Value=${APP_NAME}Worker"
done
mkdir -p /home/ubuntu/bucket /home/ubuntu/local_output
echo "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" > /tmp/keys && chmod 600 /tmp/keys
s3fs "$AWS_BUCKET" /home/ubuntu/bucket -o passwd_file=/tmp/keys
aws cloudwatch put-metric-alarm --alarm-name "${APP_NAME}_$machine" --alarm-actions arn:aws:swf:action/terminate
for worker in $(seq "$DOCKER_CORES"); do
    cp /home/ubuntu/bucket/input.txt "/home/ubuntu/local_output/$worker.txt"
    aws s3 cp "/home/ubuntu/local_output/$worker.txt" "s3://$AWS_BUCKET/out/$worker.txt" --acl bucket-owner-full-control
done
